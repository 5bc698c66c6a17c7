"""What the parser itself refuses: null where a value must be, and numbers that reach no check of ours in time."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any, get_args

from jsonargparse import Namespace

from unirl.config.places import hints_of
from unirl.errors import UserError
from unirl.ranges import within

MANY = 10**9
LIMITS: Mapping[str, tuple[float, float]] = {
    "seed_everything": (0, 2**32 - 1),
    "trainer.devices": (-1, 1024),
    "trainer.num_nodes": (1, 10_000),
    "trainer.max_epochs": (-1, MANY),
    "trainer.min_epochs": (0, MANY),
    "trainer.max_steps": (-1, MANY),
    "trainer.min_steps": (0, MANY),
    "trainer.limit_train_batches": (0, MANY),
    "trainer.limit_val_batches": (0, MANY),
    "trainer.limit_test_batches": (0, MANY),
    "trainer.overfit_batches": (0, MANY),
    "trainer.fast_dev_run": (0, MANY),
    "trainer.val_check_interval": (1e-9, MANY),
    "trainer.check_val_every_n_epoch": (1, MANY),
    "trainer.num_sanity_val_steps": (-1, MANY),
    "trainer.log_every_n_steps": (0, MANY),
    "trainer.accumulate_grad_batches": (1, 1_000_000),
    "trainer.gradient_clip_val": (0, MANY),
    "trainer.reload_dataloaders_every_n_epochs": (0, MANY),
    "guards.flat_rollouts": (0, MANY),
    "guards.refused_rollouts": (0, MANY),
    "guards.scoring_gap": (0, MANY),
    "guards.diversity": (0, 1),
    "guards.reward_rise": (0, MANY),
    "guards.fall": (0, 1),
    "pictures.count": (1, 1000),
    "pictures.columns": (1, 100),
}
"""By dotted name below the subcommand: least and most. Who is not asked is asked by its own constructor."""


def check_numbers(config: Namespace) -> None:
    """Refuse numbers that would fail later, or take a machine down; and a run that has no folder.

    Args:
        config: As parsed, with its subcommand.

    Raises:
        UserError: for the first.
    """
    command = config.get("subcommand")
    for option, (low, high) in LIMITS.items() if command else ():
        value = config.get(f"{command}.{option}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            owner, _, name = option.rpartition(".")
            within(low, high, owner or "config", **{name: value})
    folder = f"{command}.trainer.default_root_dir"
    if command and folder in config and config.get(folder) is None:
        raise UserError("trainer.default_root_dir: null is no folder; give one, or leave the option out for 'runs'")


def check_text(value: object) -> None:
    """Refuse null bytes anywhere in a config: no file and no folder can be called so.

    Args:
        value: As loaded, of any depth.

    Raises:
        UserError: there is one.
    """
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"a null byte in {value[:60]!r}; take it out")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_text(part)


def never_null(owner: Any) -> set[str]:
    """The arguments of a class that cannot be None, for which jsonargparse nevertheless lets null pass.

    Args:
        owner: The class. Constructors of its bases count, for `**kwargs` passes their arguments on.
    """
    found: set[str] = set()
    for base in reversed(owner.__mro__) if inspect.isclass(owner) else []:
        if inspect.isfunction(function := vars(base).get("__init__")):
            defaults, hints = inspect.signature(function).parameters, hints_of(function)
            takers = {name for name, hint in hints.items() if hint in (Any, None) or type(None) in get_args(hint)}
            found = (found - takers) | {
                n for n in {*hints} - takers if n in defaults and defaults[n].default is not None
            }
    return found


def check_null(config: Mapping[str, Any], filled: Collection[str], prefix: str = "") -> None:
    """Refuse null where a value must be; keys may be nested or dotted.

    Args:
        config: As loaded from YAML.
        filled: Dotted names of arguments that cannot be None.
        prefix: The dotted key of `config` itself, with its last dot.

    Raises:
        UserError: for the first null.
    """
    for key, value in config.items():
        name = f"{prefix}{key}"
        if value is None and name in filled:
            raise UserError(f"{name}: null says nothing here; give a value, or leave the option out for its default")
        if isinstance(value, Mapping):
            check_null(value, filled, f"{name}.")
