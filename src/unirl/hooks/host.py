"""Loads plugins and knows what they registered. Imports no plugin class, hence no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import pluggy

from unirl.errors import UserError, nearest
from unirl.hooks import PROJECT, spec

KINDS = {
    "backbone": "unirl_register_backbones",
    "reward": "unirl_register_rewards",
    "update": "unirl_register_updates",
    "prompts": "unirl_register_prompts",
    "judge": "unirl_register_judges",
}
"""Each plugin kind and the hook that registers its names."""


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
        return f"{self.distribution} {self.version} ({self.path})"


@dataclass(frozen=True)
class Failure:
    """A plugin that did not load.

    Args:
        plugin: Its entry-point name.
        distribution: The installed package it comes from.
        version: That package's version.
        reason: Why, on one line.
    """

    plugin: str
    distribution: str
    version: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r} of {self.distribution} {self.version} did not load: {self.reason}"


class Host:
    """What is installed: every registered name, and every plugin that failed.

    A plugin that fails stops nothing; `resolve` mentions it when a config asks for a name that nobody registered.

    Raises:
        UserError: two plugins register one name in one kind.

    Example:
        >>> Host().resolve("update", "sft")
        'unirl.updates.sft.SFT'
    """

    def __init__(self) -> None:
        self.registry: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
        self.failures: list[Failure] = []
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(spec)
        for entry in metadata.entry_points(group=PROJECT):
            self._load(entry)

    def resolve(self, kind: str, name: str) -> str:
        """The class path behind a registered name.

        Args:
            kind: One of `KINDS`.
            name: What the config says.

        Raises:
            UserError: nobody registered the name.
        """
        names = self.registry[kind]
        if name in names:
            return names[name].class_path
        offer = f"nearest: {nearest(name, names)}" if names else f"no {kind} plugin is installed"
        failed = "".join(f"; {failure}" for failure in self.failures)
        raise UserError(f"unknown {kind} {name!r}; {offer}; or give a full class path{failed}")

    def _load(self, entry: metadata.EntryPoint) -> None:
        # pluggy's own loading stops at the first import that fails and skips a second plugin of the same name
        # silently, so entry points are loaded here, one at a time.
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "?")
        plugin = None
        try:
            plugin = entry.load()
            self.manager.register(plugin, name=f"{distribution}:{entry.name}")
            self._refuse_misspelt(plugin)
            offered = self._offered(plugin, distribution, version)
        except (Exception, SystemExit) as error:
            if plugin is not None and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.failures.append(Failure(entry.name, distribution, version, reason))
            return
        for kind, items in offered.items():
            for item in items:
                self._add(kind, item)

    def _refuse_misspelt(self, plugin: object) -> None:
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            hooks = [caller.name for caller in self.manager.get_hookcallers(plugin) or () if not caller.has_spec()]
            known = [name for name in vars(spec) if name.startswith(f"{PROJECT}_")]
            named = ", ".join(f"{hook!r} (nearest: {nearest(hook, known, 1)})" for hook in hooks)
            raise AttributeError(f"no such hook: {named}") from error

    def _offered(self, plugin: object, distribution: str, version: str) -> dict[str, list[Registered]]:
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        offered: dict[str, list[Registered]] = {}
        for kind, hook in KINDS.items():
            items: list[Registered] = []
            self.manager.subset_hook_caller(hook, others)(register=_register(items, distribution, version))
            offered[kind] = items
        return offered

    def _add(self, kind: str, item: Registered) -> None:
        first = self.registry[kind].setdefault(item.name, item)
        if first is not item:
            raise UserError(f"two plugins register the {kind} {item.name!r}: {first} and {item}; uninstall one of them")


def _register(items: list[Registered], distribution: str, version: str) -> Callable[[str, str], Any]:
    def register(name: str, path: str) -> None:
        module, _, attribute = path.partition(":")
        # A dot would make the name look like a class path in configs.
        if not name or "." in name or not module or not attribute:
            raise ValueError(f'register(name, "package.module:Class") got {name!r}, {path!r}; names have no dots')
        items.append(Registered(name, path, distribution, version))

    return register


@cache
def host() -> Host:
    """The plugins of this process, loaded once.

    Raises:
        UserError: two plugins register one name in one kind.
    """
    return Host()
