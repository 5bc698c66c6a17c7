"""Hooks and arguments that have changed their names, and until when the old ones work."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import Version

import unirl
from unirl.errors import UserError

LASTS = 2
"""For how many minor versions an old name works, the one that renamed it included."""


@dataclass(frozen=True)
class Renamed:
    """A name that has changed.

    Args:
        old: The name before.
        new: The name now.
        version: The first version that has the new name, such as "0.3".

    Example:
        >>> Renamed("unirl_scored", "unirl_rollout_scored", "0.3").until
        '0.5'
    """

    old: str
    new: str
    version: str

    @property
    def until(self) -> str:
        """The first version that refuses the old name."""
        version = Version(self.version)
        return f"{version.major}.{version.minor + LASTS}"


HOOKS: tuple[Renamed, ...] = ()
"""Hooks that have changed their names."""
ARGUMENTS: dict[str, tuple[Renamed, ...]] = {}
"""Arguments that have, by the hook's name of today."""


def current(name: str, renamed: Iterable[Renamed], what: str, who: str) -> str:
    """Today's name for a name that may be an old one, with a warning if it is.

    Args:
        name: What a plugin says.
        renamed: The changes that may concern it.
        what: "hook", or "argument of ..." for messages.
        who: The plugin, for messages.

    Raises:
        UserError: the name is too old.
    """
    for change in renamed:
        if change.old != name:
            continue
        said = f"the {what} {name!r} is {change.new!r} since unirl {change.version}"
        if Version(unirl.__version__) >= Version(change.until):
            raise UserError(f"{said}; the old name worked until unirl {change.until}, this is {unirl.__version__}")
        message = f"{who}: {said}; use {change.new!r}, for the old name stops working with unirl {change.until}"
        warnings.warn(message, FutureWarning, stacklevel=2)
        return change.new
    return name
