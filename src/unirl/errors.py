"""The one error a user may see: a sentence, not a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; the message says what was got, what is allowed and what to do.

    The command line prints it as one line and exits with code 2.
    """


def nearest(name: str, allowed: Iterable[str], count: int = 3) -> str:
    """Names closest to a misspelt one, ready for an error message.

    Args:
        name: What the user wrote.
        allowed: The valid names.
        count: How many to offer at most.

    Example:
        >>> nearest("shwo", ["showo", "janus"])
        'showo'
    """
    allowed = sorted(allowed)
    return ", ".join(difflib.get_close_matches(name, allowed, count, cutoff=0.5) or allowed)


def check_minimum(least: float, owner: str, **settings: float) -> None:
    """Refuse settings below a bound, or not a number.

    Args:
        least: The bound.
        owner: Whose settings they are.
        settings: By name.

    Raises:
        UserError: for the first that is too small.

    Example:
        >>> at_least(0, "grpo", beta=0.2, epsilon=0.0)
    """
    for name, value in settings.items():
        if not value >= least:
            raise UserError(f"{owner}: {name} {value}; it must be {least} or more")


COLDEST, HOTTEST = 1e-4, 1e4
"""Temperatures between which logits, divided by them, stay finite."""


def check_range(low: float, high: float, owner: str, **settings: float | None) -> None:
    """Refuse settings outside a range, or not a number; both ends are allowed.

    Args:
        low: Least allowed.
        high: Most allowed: a bound of sense, far above what anybody trains with.
        owner: Whose settings they are.
        settings: By name.

    Raises:
        UserError: for the first that is outside.

    Example:
        >>> within(0, 1, "guards", fall=0.1, diversity=0.7)
    """
    for name, value in settings.items():
        if value is None or not low <= value <= high:
            raise UserError(f"{owner}: {name} {value}; it must be from {low} to {high}")


def check_temperature(owner: str, temperature: float | None, greedy: bool = True) -> None:
    """Refuse a temperature that logits cannot be divided by.

    Args:
        owner: Whose it is.
        temperature: As it was set; a config can say null.
        greedy: Whether 0, which takes the likeliest, is understood.

    Raises:
        UserError: it is out of range.
    """
    if temperature == 0 and greedy:
        return
    if temperature is None or not COLDEST <= temperature <= HOTTEST:
        zero = ", or 0 for the likeliest" if greedy else ""
        raise UserError(f"{owner}: temperature {temperature}; it must be from {COLDEST} to {HOTTEST}{zero}")
