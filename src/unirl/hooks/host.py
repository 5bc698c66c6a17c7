"""Loads plugins and knows what they registered. Imports no plugin class, hence no torch."""

from dataclasses import replace
from functools import cache

import pluggy

from unirl.errors import UserError, nearest
from unirl.hooks import PROJECT, spec
from unirl.hooks.conflicts import settle, shared_entry_point
from unirl.hooks.implementations import implementations
from unirl.hooks.loading import Candidate, candidates
from unirl.hooks.plugin import Plugin, Registered
from unirl.hooks.registering import Collector
from unirl.hooks.switches import Switches, from_environment

KINDS = {
    "backbone": "unirl_register_backbones",
    "reward": "unirl_register_rewards",
    "update": "unirl_register_updates",
    "prompts": "unirl_register_prompts",
    "judge": "unirl_register_judges",
}
"""Each plugin kind and the hook that registers its names."""


class Host:
    """What is installed: every plugin, whether it loaded, and every registered name.

    A plugin that fails stops nothing; `resolve` mentions it when a config asks for a name that nobody registered.

    Args:
        switches: Which plugins load; all by default.

    Raises:
        UserError: a switch names a plugin that is not there.

    Example:
        >>> Host().resolve("update", "sft")
        'unirl.updates.sft.SFT'
    """

    def __init__(self, switches: Switches | None = None) -> None:
        self.switches = switches or Switches()
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(spec)
        found = candidates(self.switches.files)
        builtin = [name for one in found if one.builtin for name in one.names]
        self.switches.check((name for one in found for name in one.names), builtin)
        allowed = [one for one in found if not self._blocked(one)]
        self.plugins, self.conflicts = settle([self._plugin(one, allowed) for one in found])
        self.registry: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
        for plugin in self.plugins:
            for kind, items in plugin.registers.items():
                self.registry[kind] |= {item.name: item for item in items}

    @property
    def failures(self) -> list[Plugin]:
        """The plugins that did not load."""
        return [plugin for plugin in self.plugins if plugin.status == "failed"]

    def resolve(self, kind: str, name: str) -> str:
        """The class path behind a registered name.

        Args:
            kind: One of `KINDS`.
            name: What the config says.

        Raises:
            UserError: nobody registered the name, or its class cannot be used.
        """
        names = self.registry[kind]
        if name not in names:
            offer = f"nearest: {nearest(name, names)}" if names else f"no {kind} plugin is installed"
            silent = "".join(f"; {plugin}" for plugin in self.plugins if plugin.status != "loaded")
            raise UserError(f"unknown {kind} {name!r}; {offer}; or give a full class path{silent}")
        item = names[name]
        if why := _problem(kind, item):
            raise UserError(f"the {kind} {name!r} of {item} cannot be used: {why}")
        return item.class_path

    def inspected(self) -> list[Plugin]:
        """The plugins, failed also where a class that they register is missing or of the wrong kind.

        Classes are read, not imported.
        """
        return [_inspected(plugin) for plugin in self.plugins]

    def checked(self) -> "Host":
        """The host itself, if nothing forbids to go on.

        Raises:
            UserError: two plugins register one name; a plugin that a switch names failed; or, in strict mode, any did.
        """
        strict = self.switches.strict
        plugins = self.inspected() if strict else self.plugins
        fatal = [str(plugin) for plugin in plugins if plugin.status == "failed" and (strict or plugin.asked)]
        others = [text for text in fatal if not any(told in text for told in self.conflicts)]
        if fatal := [*self.conflicts, *others]:
            raise UserError("; ".join(fatal))
        return self

    def _blocked(self, one: Candidate) -> str:
        return "" if one.builtin else self.switches.blocks(*one.names, asked=one.is_file)

    def _plugin(self, one: Candidate, allowed: list[Candidate]) -> Plugin:
        asked = one.is_file or self.switches.asks_for(*one.names)
        plugin = Plugin(one.name, one.distribution, one.version, one.value, asked=asked, builtin=one.builtin)
        if blocked := self._blocked(one):
            return replace(plugin, status="blocked", reason=blocked)
        if shared := shared_entry_point(one, allowed):
            return replace(plugin, status="failed", reason=shared)
        # pluggy's own loading stops at the first import that fails and skips a second plugin of the same name
        # silently, so plugins are loaded here, one at a time.
        try:
            return self._loaded(one, plugin)
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            return replace(plugin, status="failed", reason=" ".join(f"{kind}{error}".split()))

    def _loaded(self, one: Candidate, plugin: Plugin) -> Plugin:
        adapter = implementations(one.load(), f"{one.name} ({one.origin})", self.switches.trace)
        if one.is_file and not vars(adapter):
            raise UserError("it implements no hook; write @hookimpl above a function that is named after one")
        others = self.manager.get_plugins()
        self.manager.register(adapter, name=f"{one.distribution}:{one.name}")
        try:
            registers = self._registers(one, others)
        except BaseException:
            self.manager.unregister(adapter)
            raise
        watching = tuple(name for name in vars(adapter) if name not in KINDS.values())
        return replace(plugin, registers=registers, hooks=watching)

    def _registers(self, one: Candidate, others: set[object]) -> dict[str, tuple[Registered, ...]]:
        registers = {}
        for kind, hook in KINDS.items():
            collector = Collector(one.distribution, one.version)
            self.manager.subset_hook_caller(hook, others)(register=collector)
            if collector.items:
                registers[kind] = tuple(collector.items)
        return registers


def _inspected(plugin: Plugin) -> Plugin:
    if plugin.status != "loaded":
        return plugin
    items = [(kind, item) for kind, items in plugin.registers.items() for item in items]
    wrong = [f"{kind} {item.name!r}: {why}" for kind, item in items if (why := _problem(kind, item))]
    return replace(plugin, status="failed", reason="; ".join(wrong)) if wrong else plugin


def _problem(kind: str, item: Registered) -> str | None:
    from unirl.hooks import source  # noqa: PLC0415 - parsing classes is for who asks for one

    return source.problem(kind, item.path)


@cache
def host() -> Host:
    """The plugins of this process, loaded once, by the switches of its environment.

    Raises:
        UserError: a switch is wrong, or something forbids to go on; see `Host.checked`.
    """
    return Host(from_environment()).checked()
