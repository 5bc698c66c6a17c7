"""What plugin authors may rely on: when a hook was added, and whether it is there to stay."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from unirl.hooks import hookspec

Stability = Literal["stable", "experimental"]
"""Names of stable hooks and of their arguments change only as `unirl.hooks.renamed` says; experimental ones may."""
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def added(since: str, stability: Stability) -> Callable[[_Hook], _Hook]:
    """Make a function a hook specification, with attributes `since` and `stability`.

    Args:
        since: The version that added it, such as "0.1".
        stability: Whether it is there to stay.

    Example:
        >>> from unirl.hooks.spec import unirl_validated
        >>> unirl_validated.since, unirl_validated.stability
        ('0.1', 'experimental')
    """

    def mark(function: _Hook) -> _Hook:
        marked: Any = hookspec(function)
        marked.since, marked.stability = since, stability
        return marked

    return mark
