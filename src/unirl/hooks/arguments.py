"""Where a plugin's name may stand, and what it means there."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import Namespace

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.hooks.host import host
from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.updates import UpdateRule

BASES = {"backbone": Backbone, "reward": Reward, "update": UpdateRule, "prompts": Prompts, "judge": Judge}


@dataclass(frozen=True)
class PluginArgument:
    """An argument that takes a plugin.

    Args:
        kind: Which kind, decided by the base class in the annotation: a reward and a prompts plugin may share a name.
        many: Whether it takes a list of them.
    """

    kind: str
    many: bool


def plugin_arguments(owner: Any) -> dict[str, PluginArgument]:
    """The arguments of a class (or function) that take plugins, by name.

    Args:
        owner: The class. Constructors of its bases count, for `**kwargs` passes their arguments on.
    """
    functions = [vars(c).get("__init__") for c in reversed(owner.__mro__)] if inspect.isclass(owner) else [owner]
    places = {}
    for function in functions:
        for name, annotation in hints_of(function).items():
            if place := _plugin_argument(annotation):
                places[name] = place
    return places


def hints_of(function: Any) -> dict[str, Any]:
    """Annotations of a function's arguments, or none where they cannot be read.

    Args:
        function: A constructor, as a rule.
    """
    try:
        return get_type_hints(function)
    except Exception:  # not a Python function, or annotations that only a type checker can read: no plugins there
        return {}


def _plugin_argument(annotation: Any) -> PluginArgument | None:
    if inspect.isclass(annotation) and get_origin(annotation) is None:
        kinds = (kind for kind, base in BASES.items() if issubclass(annotation, base))
        return next((PluginArgument(kind, many=False) for kind in kinds), None)
    inner = next((place for arg in get_args(annotation) if (place := _plugin_argument(arg))), None)
    origin = get_origin(annotation)
    is_list = inspect.isclass(origin) and issubclass(origin, Sequence)
    return PluginArgument(inner.kind, many=True) if inner and is_list else inner


def resolve(value: Any, place: PluginArgument) -> Any:
    """A config's value for a place, with registered names replaced by class paths.

    Args:
        value: A name, a class path, `{class_path: ..., init_args: ...}`, or a list of these; all else is left alone.
        place: What is expected.

    Raises:
        UserError: a name without dots that nobody registered, or no name at all.
    """
    if isinstance(value, str):
        path = value if "." in value else host().resolve(place.kind, value)
        return [{"class_path": path}] if place.many else path
    if isinstance(value, Namespace):  # jsonargparse's form of what it has read before
        value = vars(value)
    if isinstance(value, list):
        return [resolve(item, PluginArgument(place.kind, many=False)) for item in value]
    if isinstance(value, Mapping) and not isinstance(value.get("init_args", {}), Mapping | Namespace):
        raise UserError(
            f"init_args of a {place.kind}: expected options by name, got {format_value(value['init_args'])}"
        )
    if isinstance(value, Mapping) and "class_path" in value:
        name = value["class_path"]
        if not isinstance(name, str):
            raise UserError(
                f"class_path: expected the name of a {place.kind}, or its full class path, got {format_value(name)}"
            )
        return {**value, "class_path": resolve(name, PluginArgument(place.kind, many=False))}
    return value


def format_value(value: object) -> str:
    """A value as a config has it, for messages."""
    return "null" if value is None else repr(value)


def resolve_all(config: Mapping[str, Any], places: Mapping[str, PluginArgument], prefix: str = "") -> dict[str, Any]:
    """A config with the names in all its places resolved; keys may be nested or dotted.

    Args:
        config: As loaded from YAML.
        places: By dotted key.
        prefix: The dotted key of `config` itself, with its last dot.
    """
    return dict(_resolved(config, places, prefix))


def _resolved(
    config: Mapping[str, Any], places: Mapping[str, PluginArgument], prefix: str
) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        full = f"{prefix}{key}"
        if place := plugin_argument(full, places):
            yield key, resolve(value, place)
        elif isinstance(value, Mapping) and any(name.startswith(f"{full}.") for name in places):
            yield key, resolve_all(value, places, f"{full}.")
        else:
            yield key, value


def plugin_argument(key: str, places: Mapping[str, PluginArgument]) -> PluginArgument | None:
    """The place that a dotted key names, if it does.

    Args:
        key: `model.rewards`, `model.rewards+`, `model.backbone.class_path` or `model.backbone.help`.
        places: By dotted key.
    """
    for suffix in (".class_path", ".help"):
        if key.endswith(suffix) and (place := places.get(key.removesuffix(suffix))):
            return PluginArgument(place.kind, many=False)
    # What is appended is one item, even where the place takes a list.
    if key.endswith("+") and (place := places.get(key[:-1])):
        return PluginArgument(place.kind, many=False)
    return places.get(key)
