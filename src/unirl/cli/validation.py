"""Checks of config values that jsonargparse does not make: ranges, null, null bytes, keys that stand twice."""

import inspect
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
    """Refuse null bytes in a config: no file name contains one.

    Args:
        value: As loaded from YAML, nested to any depth.

    Raises:
        UserError: a string contains a null byte.
    """
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{value[:60]!r} contains a null byte; remove it")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_text(part)


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
