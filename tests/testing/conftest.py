"""Runs a conformance class without pytest, to see what it says about a broken implementation."""

import inspect
from collections.abc import Callable

import pytest

Faults = Callable[[object], str]


@pytest.fixture
def faults() -> Faults:
    """All that the checks of a conformance class complain about, one a line; nothing for what keeps the contract."""
    return _faults


def _faults(kit: object) -> str:
    found = []
    for name, check in inspect.getmembers(kit, inspect.ismethod):
        if name.startswith("test_"):
            options = {"updates": 2} if "updates" in inspect.signature(check).parameters else {}
            try:
                check(**options)
            except pytest.skip.Exception:
                continue
            except Exception as error:
                found.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(found)
