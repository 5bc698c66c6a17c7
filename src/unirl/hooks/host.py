"""The plugin host: loads plugins, keeps what they registered, resolves names to classes. Imports no plugin class."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import pluggy

from unirl.errors import UserError, suggest
from unirl.hooks import PROJECT, specs
from unirl.hooks.configs import config_options
from unirl.hooks.discovery import Candidate, candidates
from unirl.hooks.implementations import implementations, traced
from unirl.hooks.kinds import KINDS
from unirl.hooks.options import VARIABLE, PluginOptions, from_environment, parse
from unirl.hooks.registry import Plugin, Registered, Registrar, entry_point_conflict, resolve_conflicts


class Host:
    """All plugins, whether they loaded, and all registered names.

    A plugin that fails to load stops nothing. `resolve` mentions it if a config uses a name that is not registered.

    Args:
        options: Which plugins are loaded. All by default.

    Raises:
        UserError: the options name a plugin that does not exist.

    Example:
        >>> Host().resolve("update", "sft")
        'unirl.updates.sft.SFT'
    """

    def __init__(self, options: PluginOptions | None = None) -> None:
        self.options = options or PluginOptions()
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(specs)
        found = candidates(self.options.files)
        builtin = [name for one in found if one.builtin for name in one.names]
        self.options.check((name for one in found for name in one.names), builtin)
        allowed = [one for one in found if not self._block_reason(one)]
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
        """The class path of a registered name.

        Args:
            kind: Name of a plugin kind.
            name: The registered name.

        Raises:
            UserError: the name is not registered, or its class cannot be used.
        """
        names = self.registry[kind]
        if name not in names:
            hint = f"{suggest(name, names)}" if names else f"no {kind} plugin is installed"
            unavailable = "".join(f"; {plugin}" for plugin in self.plugins if plugin.status != "loaded")
            raise UserError(f"unknown {kind} {name!r}; {hint}; or give a full class path{unavailable}")
        item = names[name]
        if reason := _class_problem(kind, item):
            raise UserError(f"the {kind} {name!r} of {item} cannot be used: {reason}")
        return item.class_path

    def inspected(self) -> list[Plugin]:
        """The plugins; also failed are those that register a missing class, or one of the wrong kind.

        Classes are read from source, not imported.
        """
        return [_inspect(plugin) for plugin in self.plugins]

    def checked(self) -> "Host":
        """The host itself, if nothing stops a run.

        Raises:
            UserError: two plugins register the same name, a plugin that the user named failed, or, in strict mode, any
                plugin failed.
        """
        strict = self.options.strict
        plugins = self.inspected() if strict else self.plugins
        failures = [str(one) for one in plugins if one.status == "failed" and (strict or one.explicit)]
        others = [text for text in failures if not any(conflict in text for conflict in self.conflicts)]
        if messages := [*self.conflicts, *others]:
            raise UserError("; ".join(messages))
        return self

    def _block_reason(self, candidate: Candidate) -> str:
        return "" if candidate.builtin else self.options.block_reason(*candidate.names, is_file=candidate.is_file)

    def _plugin(self, candidate: Candidate, allowed: list[Candidate]) -> Plugin:
        plugin = Plugin(
            candidate.name,
            candidate.distribution,
            candidate.version,
            candidate.value,
            explicit=candidate.is_file or self.options.requests(*candidate.names),
            builtin=candidate.builtin,
        )
        if reason := self._block_reason(candidate):
            return replace(plugin, status="blocked", reason=reason)
        if conflict := entry_point_conflict(candidate, allowed):
            return replace(plugin, status="failed", reason=conflict)
        # pluggy's `load_setuptools_entrypoints` stops at the first import error, and silently skips a second plugin of
        # the same name.
        try:
            return self._load(candidate, plugin)
        except (Exception, SystemExit) as error:
            prefix = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            return replace(plugin, status="failed", reason=" ".join(f"{prefix}{error}".split()))

    def _load(self, candidate: Candidate, plugin: Plugin) -> Plugin:
        module, plugin_name = candidate.load(), f"{candidate.name} ({candidate.origin})"
        found = implementations(module)
        if candidate.is_file and not found and not _defines_class(module):
            raise UserError(
                "it implements no hook and defines no class; write @hookimpl above a function with the name of a hook"
            )
        others = self.manager.get_plugins()
        registered = traced(found, plugin_name) if self.options.trace else module
        self.manager.register(registered, name=plugin_name)
        try:
            registers = self._registrations(candidate, others)
        except BaseException:
            self.manager.unregister(registered)
            raise
        registering = {kind.hook for kind in KINDS.values()}
        return replace(plugin, registers=registers, hooks=tuple(hook for hook in found if hook not in registering))

    def _registrations(self, candidate: Candidate, others: set[object]) -> dict[str, tuple[Registered, ...]]:
        registers = {}
        for kind in KINDS.values():
            registrar = Registrar(candidate.distribution, candidate.version)
            self.manager.subset_hook_caller(kind.hook, others)(register=registrar)
            if registrar.items:
                registers[kind.name] = tuple(registrar.items)
        return registers


def _defines_class(module: object) -> bool:
    """Whether configs can use a class of a file by its class path, without a registered name."""
    name = getattr(module, "__name__", "")
    return any(isinstance(value, type) and value.__module__ == name for value in vars(module).values())


def _inspect(plugin: Plugin) -> Plugin:
    if plugin.status != "loaded":
        return plugin
    items = [(kind, item) for kind, items in plugin.registers.items() for item in items]
    reasons = [f"{kind} {item.name!r}: {reason}" for kind, item in items if (reason := _class_problem(kind, item))]
    return replace(plugin, status="failed", reason="; ".join(reasons)) if reasons else plugin


def _class_problem(kind: str, item: Registered) -> str | None:
    from unirl.hooks import inspect  # noqa: PLC0415 - griffe takes 50 ms to import

    return inspect.problem(kind, item.path)


@cache
def host() -> Host:
    """The plugin host of this process, made at the first call with the plugin options of the environment.

    Raises:
        UserError: a plugin option is wrong, or a plugin stops every run; see `Host.checked`.
    """
    return Host(from_environment()).checked()


@contextmanager
def plugin_options(argv: Sequence[str]) -> Iterator[list[str]]:
    """Apply the plugin options of a command line and of its configs for the time of a `with` block.

    Those of the command line override those of the environment, which override those of configs. They are passed in
    the environment, which launched and spawned processes inherit.

    Args:
        argv: A command line. The block gets what remains of it.

    Raises:
        UserError: the value of an option is missing, or the environment variable or a config holds something else.
    """
    options, rest = parse(argv, from_environment(config_options(argv)))
    before = os.environ.get(VARIABLE, "")
    _set_environment(options.to_text())
    try:
        yield rest
    finally:
        _set_environment(before)


def reproducible_options() -> str:
    """The plugin options of this process that a run depends on, as text: all but tracing."""
    return replace(from_environment(), trace=False).to_text()


def _set_environment(text: str) -> None:
    if text == os.environ.get(VARIABLE, ""):
        return
    os.environ.pop(VARIABLE, None)
    if text:
        os.environ[VARIABLE] = text
    host.cache_clear()


def load(kind: str, name: str, **options: Any) -> Any:
    """Make an instance of a plugin.

    Args:
        kind: "backbone", "reward", "update", "prompts" or "judge".
        name: The registered name, or a full class path.
        options: Arguments of its constructor.

    Returns:
        The instance. A backbone has only read its settings: call its `build()` to load the weights.

    Raises:
        UserError: the kind or the name is unknown, the class cannot be imported or is of another kind, or its
            constructor does not accept the arguments.

    Example:
        >>> load("reward", "keyword", weight=0.5).weight
        0.5
    """
    if kind not in KINDS:
        raise UserError(f"no plugin kind {kind!r}; {suggest(kind, KINDS)}")
    path = name if "." in name else host().resolve(kind, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{kind} {name!r} cannot be imported: {error}") from error
    base = KINDS[kind].base_class()
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UserError(f"{kind} {name!r}: expected a class derived from {base.__name__}, got {cls!r}")
    try:
        return cls(**options)
    except TypeError as error:
        hint = "" if "." in name else f"; see `unirl plugins show {kind} {name}`"
        raise UserError(f"{kind} {name!r}: {error}{hint}") from error
