"""What plugins register: names for import paths, with the distribution they come from, and conflicts between them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from unirl.hooks.discovery import Candidate

Status = Literal["loaded", "blocked", "failed"]


@dataclass(frozen=True)
class Registered:
    """A name that a plugin registered.

    Args:
        name: The name in configs.
        path: Import path, `package.module:Class`.
        distribution: The installed distribution that registered it; for a single file, its path.
        version: Version of that distribution; empty for a single file.
    """

    name: str
    path: str
    distribution: str
    version: str

    @property
    def class_path(self) -> str:
        """`package.module.Class`, the form that configs use."""
        return self.path.replace(":", ".")

    def __str__(self) -> str:
        return f"{f'{self.distribution} {self.version}'.strip()} ({self.path})"


@dataclass(frozen=True)
class Plugin:
    """A plugin, that is an entry point or a single file, and the result of loading it.

    Args:
        name: Name of the entry point; for a file, its stem.
        distribution: The installed distribution; for a file, its path.
        version: Version of that distribution; empty for a file.
        value: The entry point's object reference, `package.module`.
        status: Whether it was loaded.
        reason: Why it is blocked or failed, in one line.
        registers: What it registered, by kind.
        hooks: The lifecycle hooks that it implements.
        explicit: Whether the user named it. If so, a failure to load it is an error.
        builtin: Whether it is part of this framework.
    """

    name: str
    distribution: str
    version: str
    value: str
    status: Status = "loaded"
    reason: str = ""
    registers: dict[str, tuple[Registered, ...]] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    explicit: bool = False
    builtin: bool = False

    @property
    def origin(self) -> str:
        """Distribution and version, or the file."""
        return f"{self.distribution} {self.version}".strip()

    def __str__(self) -> str:
        status = {"failed": f" did not load: {self.reason}", "blocked": f" is blocked: {self.reason}", "loaded": ""}
        return f"plugin {self.name!r} of {self.origin}{status[self.status]}"


@dataclass
class Registrar:
    """The `register` argument of registering hooks: collects what one plugin registers of one kind.

    Args:
        distribution: The distribution that registers.
        version: Its version.
        items: What it registered so far.
    """

    distribution: str
    version: str
    items: list[Registered] = field(default_factory=list)

    def __call__(self, name: str, path: str) -> None:
        """Register a class under a name.

        Args:
            name: The name in configs. It has no dots: a value with dots is a class path.
            path: `package.module:Class`.

        Raises:
            TypeError: `path` is not a string.
            ValueError: `name` or `path` is malformed, or the name is registered twice.
        """
        if not isinstance(path, str):
            raise TypeError(f"register({name!r}, ...): expected an import path, package.module:Class, got {path!r}")
        module, _, attribute = path.partition(":")
        if not module or not attribute:
            raise ValueError(
                f"register({name!r}, {path!r}): expected an import path with a colon, package.module:Class"
            )
        if not name or "." in name:
            raise ValueError(f"register({name!r}, {path!r}): a name must not be empty and must not contain dots")
        if any(item.name == name for item in self.items):
            raise ValueError(f"{name!r} is registered twice")
        self.items.append(Registered(name, path, self.distribution, self.version))

    def __str__(self) -> str:
        return f"registers {', '.join(item.name for item in self.items) or 'nothing'}"


def entry_point_conflict(candidate: Candidate, others: Iterable[Candidate]) -> str:
    """Why a plugin cannot be loaded because others have the same entry-point name. Built-in plugins always load.

    Args:
        candidate: The plugin.
        others: All plugins that may be loaded.

    Returns:
        The reason, or an empty string.
    """
    origins = [other.origin for other in others if other is not candidate and other.name == candidate.name]
    if not origins or candidate.builtin:
        return ""
    block = "" if candidate.is_file else f", or block one with -p no:{candidate.distribution}"
    return f"{' and '.join(origins)} has a plugin named {candidate.name!r}, too; remove one{block}"


def resolve_conflicts(plugins: list[Plugin]) -> tuple[list[Plugin], list[str]]:
    """Mark plugins as failed that register a name of another plugin. Built-in plugins stay loaded.

    Args:
        plugins: The plugins as loaded.

    Returns:
        The plugins with their new status, and a message for each name that is registered twice.
    """
    owners: dict[tuple[str, str], list[tuple[Plugin, Registered]]] = defaultdict(list)
    for plugin in plugins:
        for kind, items in plugin.registers.items():
            for item in items:
                owners[kind, item.name].append((plugin, item))
    messages = {key: _conflict_message(*key, both) for key, both in owners.items() if len(both) > 1}
    resolved = []
    for plugin in plugins:
        reasons = [text for key, text in messages.items() if any(plugin is owner for owner, _ in owners[key])]
        failed = replace(plugin, status="failed", reason="; ".join(reasons))
        resolved.append(failed if reasons and not plugin.builtin else plugin)
    return resolved, list(messages.values())


def _conflict_message(kind: str, name: str, owners: list[tuple[Plugin, Registered]]) -> str:
    items = " and ".join(str(item) for _, item in owners)
    last = owners[-1][0].name
    return f"two plugins register the {kind} {name!r}: {items}; uninstall one of them, or block one with -p no:{last}"
