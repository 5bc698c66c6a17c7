"""Loads plugins and knows what they registered. Imports no plugin class, hence no torch."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any, Literal

import pluggy

from unirl.errors import UserError, nearest
from unirl.hooks import PROJECT, specs
from unirl.hooks.discovery import Candidate, candidates
from unirl.hooks.implementations import implementations
from unirl.hooks.options import VARIABLE, Switches, from_environment, parse

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


@dataclass
class Collector:
    """Takes down what one plugin registers of one kind.

    Args:
        distribution: The package that registers.
        version: Its version.
        items: What it has registered.
    """

    distribution: str
    version: str
    items: list[Registered] = field(default_factory=list)

    def __call__(self, name: str, path: str) -> None:
        """Offer a class under a name.

        Args:
            name: What configs say; no dots, or it would look like a class path.
            path: `package.module:Class`.

        Raises:
            ValueError: either is malformed, or the name was offered before.
        """
        if not isinstance(path, str):
            raise TypeError(f"register({name!r}, ...) got {path!r}; give its import path as text, package.module:Class")
        module, _, attribute = path.partition(":")
        if not module or not attribute:
            raise ValueError(f'register({name!r}, {path!r}): an import path has a colon, "package.module:Class"')
        if not name or "." in name:
            raise ValueError(f"register({name!r}, {path!r}): a name is not empty and has no dots")
        if any(item.name == name for item in self.items):
            raise ValueError(f"{name!r} is registered twice")
        self.items.append(Registered(name, path, self.distribution, self.version))

    def __str__(self) -> str:
        return f"registers {', '.join(item.name for item in self.items) or 'nothing'}"


Claims = dict[tuple[str, str], list[tuple[Plugin, Registered]]]
"""Who registers what, by kind and name."""


def shared_entry_point(one: Candidate, others: Iterable[Candidate]) -> str:
    """Why a plugin cannot load, if others have its entry point's name; the framework's own always can.

    Args:
        one: The plugin.
        others: All that may load.
    """
    same = [other.origin for other in others if other is not one and other.name == one.name]
    if not same or one.builtin:
        return ""
    advice = "" if one.is_file else f", or block one: -p no:{one.distribution}"
    return f"the name {one.name!r} is also that of a plugin of {' and '.join(same)}; remove one{advice}"


def resolve_conflicts(plugins: list[Plugin]) -> tuple[list[Plugin], list[str]]:
    """The plugins, those failed that register a name which another registers too, and a sentence for each such name.

    Args:
        plugins: As loaded.
    """
    claims: Claims = {}
    for plugin in plugins:
        for kind, items in plugin.registers.items():
            for item in items:
                claims.setdefault((kind, item.name), []).append((plugin, item))
    told = {claim: _sentence(*claim, sides) for claim, sides in claims.items() if len(sides) > 1}
    settled = []
    for plugin in plugins:
        mine = [text for claim, text in told.items() if any(plugin is other for other, _ in claims[claim])]
        failed = replace(plugin, status="failed", reason="; ".join(mine))
        settled.append(failed if mine and not plugin.builtin else plugin)
    return settled, list(told.values())


def _sentence(kind: str, name: str, sides: list[tuple[Plugin, Registered]]) -> str:
    both = " and ".join(str(item) for _, item in sides)
    last = sides[-1][0]
    return f"two plugins register the {kind} {name!r}: {both}; uninstall one of them, or block one: -p no:{last.name}"


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
        self.manager.add_hookspecs(specs)
        found = candidates(self.switches.files)
        builtin = [name for one in found if one.builtin for name in one.names]
        self.switches.check((name for one in found for name in one.names), builtin)
        allowed = [one for one in found if not self._blocked(one)]
        self.plugins, self.conflicts = resolve_conflicts([self._plugin(one, allowed) for one in found])
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
    from unirl.hooks import inspect  # noqa: PLC0415 - griffe takes 50 ms to import

    return inspect.problem(kind, item.path)


@cache
def host() -> Host:
    """The plugins of this process, loaded once, by the switches of its environment.

    Raises:
        UserError: a switch is wrong, or something forbids to go on; see `Host.checked`.
    """
    return Host(from_environment()).checked()


@contextmanager
def with_switches(argv: Sequence[str]) -> Iterator[list[str]]:
    """Take the switches out of a command line and let everything that loads plugins see them.

    They go through the environment, which launched and spawned processes inherit.

    Args:
        argv: A command line; what is left of it is yielded.

    Raises:
        UserError: a switch lacks its value, or the environment holds no switches.
    """
    switches, rest = parse(argv, from_environment())
    before = os.environ.get(VARIABLE, "")
    _set(switches.text())
    try:
        yield rest
    finally:
        _set(before)


def _set(text: str) -> None:
    if text == os.environ.get(VARIABLE, ""):
        return
    os.environ.pop(VARIABLE, None)
    if text:
        os.environ[VARIABLE] = text
    host.cache_clear()


def load(kind: str, name: str, **options: Any) -> Any:
    """An instance of a registered plugin class.

    Args:
        kind: "backbone", "reward", "update", "prompts" or "judge".
        name: The registered name, or a full class path.
        options: Arguments of its constructor.

    Returns:
        The instance. A backbone reads only its settings so far: call its `build()` to load the weights.

    Raises:
        UserError: the kind or the name is not registered, the class cannot be used, or it refuses its arguments.

    Example:
        >>> load("reward", "keyword", weight=0.5).weight
        0.5
    """
    if kind not in KINDS:
        raise UserError(f"no kind {kind!r}; nearest: {nearest(kind, KINDS)}")
    path = name if "." in name else host().resolve(kind, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"no {kind} class {name!r}: {error}") from error
    try:
        return cls(**options)
    except TypeError as error:
        raise UserError(f"{kind} {name!r}: {error}; see `unirl plugins show {kind} {name}`") from error
