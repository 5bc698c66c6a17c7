"""What is known about a plugin and about what it registers."""

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["loaded", "blocked", "failed"]


@dataclass(frozen=True)
class Registered:
    """One name that a plugin offers.

    Args:
        name: What configs say.
        path: Import path, `package.module:Class`.
        distribution: The installed package it comes from.
        version: That package's version.
    """

    name: str
    path: str
    distribution: str
    version: str

    @property
    def class_path(self) -> str:
        """`package.module.Class`, as configs hold it."""
        return self.path.replace(":", ".")

    def __str__(self) -> str:
        return f"{f'{self.distribution} {self.version}'.strip()} ({self.path})"


@dataclass(frozen=True)
class Plugin:
    """One entry point, or one file, and what became of it.

    Args:
        name: Its entry point's name; of a file, the stem.
        distribution: The installed package it comes from; of a file, its path.
        version: That package's version; of a file, nothing.
        value: What the entry point refers to, `package.module`.
        status: What became of it.
        reason: Why it is blocked or failed, on one line.
        registers: What it offers, by kind.
        hooks: The lifecycle hooks that it implements.
        asked: Whether a switch names it, so that a failure must not pass.
        builtin: Whether the framework ships it.
    """

    name: str
    distribution: str
    version: str
    value: str
    status: Status = "loaded"
    reason: str = ""
    registers: dict[str, tuple[Registered, ...]] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    asked: bool = False
    builtin: bool = False

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return f"{self.distribution} {self.version}".strip()

    def __str__(self) -> str:
        said = {"failed": f" did not load: {self.reason}", "blocked": f" is blocked: {self.reason}", "loaded": ""}
        return f"plugin {self.name!r} of {self.origin}{said[self.status]}"
