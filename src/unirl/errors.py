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


def at_least(least: float, owner: str, **settings: float) -> None:
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
