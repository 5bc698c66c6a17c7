"""What becomes of the options of a class that a later config or argument replaces by another class."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import yaml
from jsonargparse import Namespace

from unirl.hooks.configs import option_values, read_config

CONFIG_OPTIONS = ("--config", "-c")
PLAIN = (bool, int, float, str, type(None))
CONFIG_FILES = (".yaml", ".yml", ".json")


@dataclass
class ClassChange:
    """A class argument over all configs and arguments, in their order.

    Args:
        old: The class before the first change; empty without a change.
        current: The class so far.
        given: Options given for the current class.
        carried: Options given for earlier classes, and not again.
    """

    old: str = ""
    current: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    carried: dict[str, Any] = field(default_factory=dict)

    def set_class(self, path: str) -> None:
        """Record a class. Paths of one class may differ in the module only."""
        if self.current and path.rpartition(".")[2] != self.current.rpartition(".")[2]:
            self.old = self.old or self.current
            self.carried, self.given = {**self.carried, **self.given}, {}
        self.current = path

    def set_option(self, name: str, value: Any) -> None:
        """Record an option."""
        self.given[name] = value
        self.carried.pop(name, None)


def class_changes(
    sources: Iterable[Mapping[str, Any]], config: Namespace, name_of: Callable[[str, str], str]
) -> list[str]:
    """A line for each class that was replaced by another one after options were given for it.

    Options that the new class accepts, too, are kept, as jsonargparse does, and named with the others. Defaults
    of the old class, which jsonargparse keeps for callables, are replaced in `config` by those of the new class.

    Args:
        sources: Options by dotted key, one mapping for the defaults and each config or argument, in their order.
        config: The parsed result.
        name_of: A class's name by its key and class path.

    Example:
        >>> update = Namespace(class_path="b.New", init_args=Namespace(seed=3, size=1))
        >>> given = {"update.class_path": "a.Old", "update.init_args.seed": 3, "update.init_args.depth": 2}
        >>> class_changes([given, {"update": "b.New"}], Namespace(update=update), lambda key, path: path)
        ['update: b.New replaces a.Old. Of the options given before, it keeps seed 3, and drops depth']
    """
    keys = [key for key in config.keys(branches=True) if _is_class(config[key])]
    changes = {key: ClassChange() for key in sorted(keys, key=len, reverse=True)}  # nested ones first
    for source in sources:
        # The class first, wherever it stands in a config.
        for key, value in sorted(source.items(), key=lambda item: not _names_class(item[0], keys)):
            _record(changes, key, value)
    for key in keys:
        _restore_defaults(changes[key], config[key])
    return [line for key in keys if (line := _line(key, changes[key], config[key], name_of))]


def default_options(key: str, value: Any) -> dict[str, Any]:
    """The class of a default and the options that it sets, by dotted key; empty where the default is no class.

    Args:
        key: The argument.
        value: Its default.

    Example:
        >>> default_options("x", {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}})
        {'x.class_path': 'torch.optim.AdamW', 'x.init_args.lr': 1e-05}
    """
    return dict(_leaves({key: value})) if isinstance(value, Mapping) and "class_path" in value else {}


def _restore_defaults(change: ClassChange, value: Namespace) -> None:
    if not change.old:
        return
    options = value.get("init_args") or Namespace()
    explicit = {name.partition(".")[0] for name in (*change.given, *change.carried)}
    for name, default in _signature_defaults(value["class_path"]).items():
        if name in options and name not in explicit and isinstance(default, PLAIN) and options[name] != default:
            options[name] = default


def _signature_defaults(path: str) -> dict[str, Any]:
    module, _, name = path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError):  # no class, or without a signature
        return {}
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _is_class(value: object) -> bool:
    return isinstance(value, Namespace) and "class_path" in value


def _names_class(key: str, keys: Sequence[str]) -> bool:
    return key.removesuffix(".class_path") in keys


def _record(changes: Mapping[str, ClassChange], key: str, value: Any) -> None:
    for owner, change in changes.items():
        if key in (owner, f"{owner}.class_path"):
            if isinstance(value, str) and not value.endswith(CONFIG_FILES):
                change.set_class(value)
            return
        if key.startswith(f"{owner}."):
            change.set_option(key.removeprefix(f"{owner}.").removeprefix("init_args."), value)
            return


def _line(key: str, change: ClassChange, value: Namespace, name_of: Callable[[str, str], str]) -> str:
    if not change.carried:
        return ""
    options = value.get("init_args") or Namespace()
    kept = [name for name, given in change.carried.items() if name in options and _same(options[name], given)]
    dropped = [name for name in change.carried if name not in kept]
    parts = []
    if kept:
        parts.append("keeps " + ", ".join(f"{name} {change.carried[name]}" for name in kept))
    if dropped:
        parts.append("drops " + ", ".join(dropped))
    new, old = name_of(key, value["class_path"]), name_of(key, change.old)
    return f"{key}: {new} replaces {old}. Of the options given before, it {', and '.join(parts)}"


def _same(value: Any, given: Any) -> bool:
    """Whether a parsed value is a given one, which may be a number as text."""
    try:
        return value == given or float(value) == float(given)
    except (TypeError, ValueError):
        return str(value) == str(given)


def sources_of(argv: Sequence[str], resolve: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The options of each config and argument of a command line.

    Args:
        argv: Arguments that were parsed without an error.
        resolve: Replaces registered names in a config.
    """
    for option, value in option_values(argv):
        if option in CONFIG_OPTIONS:
            yield dict(_leaves(resolve(read_config(value) or _as_dict(value))))
        elif option.startswith("--") and not option.endswith("+"):
            yield dict(_leaves({option[2:]: _loaded(value)}))


def _as_dict(text: str) -> dict[str, Any]:
    value = _loaded(text)
    return value if isinstance(value, dict) else {}


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
