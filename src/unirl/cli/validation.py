"""Checks of config values that jsonargparse does not make: ranges, null, null bytes, keys that stand twice."""

import inspect
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args

import yaml
from jsonargparse import Namespace

from unirl.errors import UserError, check_range
from unirl.hooks.arguments import type_hints

_MANY = 10**9
LIMITS: Mapping[str, tuple[float, float]] = {
    "seed_everything": (0, 2**32 - 1),
    "trainer.devices": (-1, 1024),
    "trainer.num_nodes": (1, 10_000),
    "trainer.max_epochs": (-1, _MANY),
    "trainer.min_epochs": (0, _MANY),
    "trainer.max_steps": (-1, _MANY),
    "trainer.min_steps": (0, _MANY),
    "trainer.limit_train_batches": (0, _MANY),
    "trainer.limit_val_batches": (0, _MANY),
    "trainer.limit_test_batches": (0, _MANY),
    "trainer.overfit_batches": (0, _MANY),
    "trainer.fast_dev_run": (0, _MANY),
    "trainer.val_check_interval": (1e-9, _MANY),
    "trainer.check_val_every_n_epoch": (1, _MANY),
    "trainer.num_sanity_val_steps": (-1, _MANY),
    "trainer.log_every_n_steps": (0, _MANY),
    "trainer.accumulate_grad_batches": (1, 1_000_000),
    "trainer.gradient_clip_val": (0, _MANY),
    "trainer.reload_dataloaders_every_n_epochs": (0, _MANY),
    "guards.zero_variance_patience": (0, _MANY),
    "guards.zero_accepted_patience": (0, _MANY),
    "guards.max_logprob_gap": (0, _MANY),
    "guards.min_diversity": (0, 1),
    "guards.max_reward_rise": (0, _MANY),
    "guards.max_accuracy_drop": (0, 1),
    "images.count": (1, 1000),
    "images.columns": (1, 100),
}
"""Least and largest value by dotted option below the subcommand; other options are checked by their constructors.

jsonargparse's restricted types would have to be the annotations of Lightning's `Trainer`, and their messages would not
give the range.
"""


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
NULL_WORDS = ("", "null", "~")
_ESCAPE = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|.)", re.IGNORECASE)
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may contain, and YAML reads as a line break or not at all."""


def check_numbers(config: Namespace) -> None:
    """Check numbers that would fail only later, or exhaust the machine; and that a run has a folder.

    Args:
        config: As parsed, with its subcommand.

    Raises:
        UserError: for the first value out of range.
    """
    command = config.get("subcommand")
    if not command:
        return
    for option, (low, high) in LIMITS.items():
        value = config.get(f"{command}.{option}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            owner, _, name = option.rpartition(".")
            check_range(low, high, owner or "config", **{name: value})
    folder = f"{command}.trainer.default_root_dir"
    if folder in config and config.get(folder) is None:
        raise UserError("trainer.default_root_dir: expected a folder, got null; omit the option for 'runs'")


def check_text(value: object) -> None:
    """Refuse control characters in a config: no name of a file has a null byte, and YAML folds others into blanks.

    Args:
        value: As loaded from YAML, nested to any depth.

    Raises:
        UserError: a string contains a control character other than a tab or a line break.
    """
    if isinstance(value, str) and (match := _CONTROL.search(value)):
        what = "a null byte" if match[0] == "\0" else f"the control character {match[0]!r}"
        raise UserError(f"{value[:60]!r} contains {what}; remove it")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_text(part)


def json_as_yaml(content: str) -> str:
    r"""JSON as PyYAML reads it: without tabs, surrogates in pairs, or raw characters that are line breaks in YAML.

    Args:
        content: JSON, or anything else, which is returned as it is.

    Example:
        >>> json_as_yaml(r'{"name": "\ud83d\ude00"}')
        '{"name": "\\U0001f600"}'
    """
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return content
    content = _ESCAPE.sub(lambda match: _join(match) if match[1] else match[0], content.replace("\t", " "))
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", content)


def _join(pair: re.Match[str]) -> str:
    high, low = int(pair[1], 16), int(pair[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + low - 0xDC00:08x}"


def check_keys(content: str) -> None:
    """Refuse a key that stands twice in a config, nested or dotted: the loader would drop the first value.

    Args:
        content: Valid YAML or JSON.

    Raises:
        UserError: names the key and both lines.
    """
    lines: dict[str, int] = {}
    for key, line in _keys(yaml.compose(content), ""):
        if key in lines:
            raise UserError(f"line {line}: {key} stands in line {lines[key]}, too; write it once, with all its options")
        lines[key] = line


def _keys(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Each key of a config with its place and line. What an alias repeats is not looked at again."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _keys(item, f"{prefix.removesuffix('.')}[{i}].")
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            if value.start_mark.index >= key.start_mark.index:  # an alias is the node that it names
                yield from _keys(value, f"{name}.")


def required_values(owner: Any) -> set[str]:
    """The arguments of a class that must not be None. jsonargparse accepts null for them.

    Args:
        owner: The class. Constructors of base classes are included, since `**kwargs` pass their arguments.
    """
    names: set[str] = set()
    for base in reversed(owner.__mro__) if inspect.isclass(owner) else []:
        if inspect.isfunction(function := vars(base).get("__init__")):
            parameters = dict([*inspect.signature(function).parameters.items()][1:])  # without self, even if annotated
            hints = {name: hint for name, hint in type_hints(function).items() if name in parameters}
            optional = {name for name, hint in hints.items() if hint in (Any, None) or type(None) in get_args(hint)}
            required = {*hints} - optional
            names = (names - optional) | {name for name in required if parameters[name].default is not None}
    return names


def check_null(config: Mapping[str, Any], required: Collection[str], prefix: str = "") -> None:
    """Refuse null for arguments that need a value. Keys may be nested or dotted.

    Args:
        config: As loaded from YAML.
        required: Dotted names of arguments that must not be None.
        prefix: The dotted key of `config` itself, with a dot at its end.

    Raises:
        UserError: for the first null.
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if value is None and name in required:
            raise UserError(f"{name}: expected a value, got null; omit the option for its default")
        if isinstance(value, Mapping):
            check_null(value, required, f"{name}.")


def check_lost_text(given: object, parsed: object, name: str = "") -> None:
    """Refuse a text that was read as null, because YAML takes it for a comment or an anchor.

    Args:
        given: As loaded from YAML.
        parsed: What became of it: a namespace, a list, or a value.
        name: The dotted key of both.

    Raises:
        UserError: names the option.

    Example:
        >>> check_lost_text({"seed": "null"}, {"seed": None})
    """
    if isinstance(given, Mapping) and isinstance(parsed, Namespace | dict):
        for key, value in given.items():
            if key in parsed:
                check_lost_text(value, parsed[key], f"{name}.{key}".removeprefix("."))
    elif isinstance(given, list) and isinstance(parsed, list) and len(given) == len(parsed):
        for i, (value, one) in enumerate(zip(given, parsed, strict=True)):
            check_lost_text(value, one, f"{name}[{i}]")
    elif isinstance(given, str) and parsed is None and given.strip().lower() not in NULL_WORDS:
        raise UserError(
            f"{name}: the text {given!r} means null in YAML, in which it is a comment or an anchor; rename it"
        )
