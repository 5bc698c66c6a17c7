"""Constructor arguments that take plugins, and the replacement of registered names by class paths, and back."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import Namespace

from unirl.errors import UserError
from unirl.hooks.host import host
from unirl.hooks.kinds import KINDS


@dataclass(frozen=True)
class PluginArgument:
    """An argument that takes a plugin.

    Args:
        kind: Name of the plugin kind, which follows from the annotation. Plugins of two kinds may have the same name.
        is_list: Whether it takes a list of plugins.
    """

    kind: str
    is_list: bool = False

    @property
    def item(self) -> "PluginArgument":
        """One item of the list, or the argument itself."""
        return replace(self, is_list=False)


def plugin_arguments(owner: Any) -> dict[str, PluginArgument]:
    """The arguments of a class or function that take plugins, by name.

    Args:
        owner: The class or function. Constructors of base classes are included, since `**kwargs` pass their arguments.
    """
    functions = [vars(c).get("__init__") for c in reversed(owner.__mro__)] if inspect.isclass(owner) else [owner]
    arguments = {}
    for function in functions:
        for name, annotation in type_hints(function).items():
            if argument := _from_annotation(annotation):
                arguments[name] = argument
    return arguments


def type_hints(function: Any) -> dict[str, Any]:
    """The evaluated annotations of a function, or none if they cannot be evaluated.

    Args:
        function: A function or a constructor.
    """
    try:
        return get_type_hints(function)
    except Exception:  # not a Python function, or names that exist for type checkers only
        return {}


def _from_annotation(annotation: Any) -> PluginArgument | None:
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        kinds = (kind.name for kind in KINDS.values() if issubclass(annotation, kind.base_class()))
        return next((PluginArgument(kind) for kind in kinds), None)
    inner = next((found for arg in get_args(annotation) if (found := _from_annotation(arg))), None)
    origin = get_origin(annotation)
    is_sequence = inspect.isclass(origin) and issubclass(origin, Sequence)
    return PluginArgument(inner.kind, is_list=True) if inner and is_sequence else inner


def plugin_argument(key: str, arguments: Mapping[str, PluginArgument]) -> PluginArgument | None:
    """The argument that a dotted key refers to, if it takes a plugin.

    Args:
        key: `model.rewards`, `model.rewards+`, `model.backbone.class_path` or `model.backbone.help`.
        arguments: By dotted key.
    """
    for suffix in (".class_path", ".help"):
        if key.endswith(suffix) and (argument := arguments.get(key.removesuffix(suffix))):
            return argument.item
    # `+` appends one item, also to a list.
    if key.endswith("+") and (argument := arguments.get(key[:-1])):
        return argument.item
    return arguments.get(key)


def resolve(value: Any, argument: PluginArgument) -> Any:
    """Replace registered names by class paths in the value of an argument.

    Args:
        value: A name, a class path, `{class_path: ..., init_args: ...}`, or a list of these. Other values are returned
            unchanged.
        argument: The argument.

    Raises:
        UserError: a name without dots is not registered, or `class_path` or `init_args` has the wrong type.
    """
    if isinstance(value, str):
        path = value if "." in value else host().resolve(argument.kind, value)
        return [{"class_path": path}] if argument.is_list else path
    if isinstance(value, Namespace):  # values that jsonargparse has parsed already
        value = vars(value)
    if isinstance(value, list):
        return [resolve(item, argument.item) for item in value]
    if not isinstance(value, Mapping):
        return value
    _check_init_args(value, argument.kind)
    if "class_path" not in value:
        return value
    name = value["class_path"]
    if not isinstance(name, str):
        raise UserError(
            f"class_path: expected the name of a {argument.kind}, or its full class path, got {format_value(name)}"
        )
    return {**value, "class_path": resolve(name, argument.item)}


def _check_init_args(value: Mapping[str, Any], kind: str) -> None:
    init_args = value.get("init_args", {})
    if not isinstance(init_args, Mapping | Namespace):
        raise UserError(f"init_args of a {kind}: expected options by name, got {format_value(init_args)}")


def format_value(value: object) -> str:
    """A value as written in a config, for messages."""
    return "null" if value is None else repr(value)


def resolve_all(config: Mapping[str, Any], arguments: Mapping[str, PluginArgument], prefix: str = "") -> dict[str, Any]:
    """Replace registered names by class paths in a whole config. Keys may be nested or dotted.

    Args:
        config: As loaded from YAML.
        arguments: By dotted key.
        prefix: The dotted key of `config` itself, with a dot at its end.

    Raises:
        UserError: as for `resolve`.
    """
    return dict(_resolved(config, arguments, prefix))


def _resolved(
    config: Mapping[str, Any], arguments: Mapping[str, PluginArgument], prefix: str
) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        full = f"{prefix}{key}"
        if argument := plugin_argument(full, arguments):
            yield key, resolve(value, argument)
        elif isinstance(value, Mapping) and any(name.startswith(f"{full}.") for name in arguments):
            yield key, resolve_all(value, arguments, f"{full}.")
        else:
            yield key, value


def registered_name(kind: str, class_path: str) -> str:
    """The name under which a class is registered, or its class path.

    Args:
        kind: Name of a plugin kind.
        class_path: Any import path of the class.

    Example:
        >>> registered_name("update", "unirl.updates.SFT"), registered_name("update", "my.SFT")
        ('sft', 'my.SFT')
    """
    module, _, attribute = class_path.rpartition(".")
    for name, item in host().registry[kind].items():
        if item.path.rpartition(":")[2] == attribute and _import(module, attribute) is _import(*item.path.split(":")):
            return name
    return class_path


def _import(module: str, attribute: str) -> object:
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        return object()  # equal to nothing else


def with_names(config: Mapping[str, Any], arguments: Mapping[str, PluginArgument], prefix: str = "") -> dict[str, Any]:
    """Replace class paths by registered names in a whole config, the reverse of `resolve_all`.

    Args:
        config: As written to YAML: nested, without objects.
        arguments: By dotted key.
        prefix: The dotted key of `config` itself, with a dot at its end.
    """
    named = {}
    for key, value in config.items():
        full = f"{prefix}{key}"
        if argument := arguments.get(full):
            named[key] = _named(value, argument)
        elif isinstance(value, Mapping) and any(name.startswith(f"{full}.") for name in arguments):
            named[key] = with_names(value, arguments, f"{full}.")
        else:
            named[key] = value
    return named


def _named(value: Any, argument: PluginArgument) -> Any:
    if isinstance(value, list):
        return [_named(item, argument.item) for item in value]
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        return {**value, "class_path": registered_name(argument.kind, value["class_path"])}
    return value
