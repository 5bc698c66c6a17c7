"""Runs a conformance class without pytest, to see how it describes errors."""

import inspect
from collections.abc import Callable

import pytest

Failures = Callable[[object], str]


@pytest.fixture
def failures() -> Failures:
    """The messages of all failed checks of a conformance class, one a line; empty if all checks pass."""
    return _failures


def _failures(conformance: object) -> str:
    messages = []
    for name, check in inspect.getmembers(conformance, inspect.ismethod):
        if name.startswith("test_"):
            options = {"num_iterations": 2} if "num_iterations" in inspect.signature(check).parameters else {}
            try:
                check(**options)
            except pytest.skip.Exception:
                continue
            except Exception as error:
                messages.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(messages)
