"""Ways to spoil a config. Every one is a function of a seed, so that a failure can be run again by its number."""

import copy
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Config = dict[str, Any]
Path = tuple[str | int, ...]

WRONG: list[Any] = [
    *(None, True, "abc", "", [], [1, "a"], {}, {"a": 1}, [None], math.nan, math.inf, -math.inf),
    *(0, -1, -0.5, 1.5, 1e-300, 10**9, 10**30, -(10**30)),
]
"""Values of the wrong type, and sizes that nobody means."""
NAMES = [
    "nope",
    "shwo",
    "x.y.Z",
    "builtins.int",
    "...",
    "a b.c",
    "unirl.training.module.SelfImprovement",
    "/",
    "nope:x",
    "\0",
    "ä",
]
NAMED = ("class_path", "prompts", "judge", "checkpoint", "update", "features", "accelerator", "lr_schedule")
"""Options that take a name."""
MORE = (
    *(
        "seed_everything",
        "name",
        "requires_plugins",
        "model.betas",
        "model.weight_decay",
        "model.rollout.accept_threshold",
        "model.seed",
    ),
    *(
        "model.num_understanding",
        "model.diversity_prompts",
        "model.trainable_modules",
        "model.lora.rank",
        "model.lora.targets",
    ),
    *("model.sampling.guidance", "model.sampling.temperature", "model.answering.temperature", "data.seed"),
    *("trainer.devices", "trainer.num_nodes", "trainer.max_steps", "trainer.max_time", "trainer.precision"),
    *("trainer.strategy", "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.logger"),
    *("trainer.val_check_interval", "trainer.limit_val_batches", "trainer.log_every_n_steps", "trainer.plugins"),
    *(
        "guards.max_accuracy_drop",
        "guards.zero_variance_patience",
        "guards",
        "pictures.count",
        "pictures.columns",
        "results",
        "export",
    ),
)
"""Options that the shipped configs leave at their defaults."""


def spoiled(config: Config, seed: int) -> Config:
    """A copy of a config with one to three things wrong.

    Args:
        config: Right.
        seed: Decides which.
    """
    chance, config = Random(f"spoil {seed}"), copy.deepcopy(config)
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice(KINDS)(config, chance)
    return config


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every key and every index, of any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def _owner(config: Config, path: Path) -> Any:
    owner: Any = config
    for key in path[:-1]:
        owner = owner[key]
    return owner


def _some(config: Config, chance: Random) -> tuple[Any, Any]:
    """A place by chance, as what holds it and its key."""
    path = chance.choice([*places(config), ("name",)])
    return _owner(config, path), path[-1]


def delete(config: Config, chance: Random) -> None:
    owner, key = _some(config, chance)
    if isinstance(owner, list) or key in owner:
        del owner[key]


def misspell(config: Config, chance: Random) -> None:
    keys = [path for path in places(config) if isinstance(path[-1], str)]
    path = chance.choice(keys or [("name",)])
    owner, key = _owner(config, path), str(path[-1])
    at = chance.randrange(len(key))
    owner[key[:at] + chance.choice(("", "x", ".", " ", key[at] * 2)) + key[at + 1 :]] = owner.pop(key, 1)


def replace(config: Config, chance: Random) -> None:
    owner, key = _some(config, chance)
    owner[key] = chance.choice(WRONG)


def rename(config: Config, chance: Random) -> None:
    found = [path for path in places(config) if path[-1] in NAMED]
    path = chance.choice(found or [("name",)])
    _owner(config, path)[path[-1]] = chance.choice(NAMES)


def swap(config: Config, chance: Random) -> None:
    if len(config) > 1:
        one, other = chance.sample(sorted(config, key=str), 2)
        config[one], config[other] = config[other], config[one]


def add(config: Config, chance: Random) -> None:
    *above, last = chance.choice(MORE).split(".")
    owner: Any = config
    for name in above:
        if not isinstance(owner.get(name), dict):
            owner[name] = {}
        owner = owner[name]
    owner[last] = chance.choice(WRONG)


KINDS: tuple[Callable[[Config, Random], None], ...] = (delete, misspell, replace, replace, rename, swap, add, add)
