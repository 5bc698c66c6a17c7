"""Mutations of a config. Each is a function of a seed, so that a failure can be reproduced."""

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
"""Values of a wrong type, and unusual sizes."""
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
NAMED = ("class_path", "prompts", "judge", "checkpoint", "update", "diversity_model", "accelerator", "optimizer")
"""Options that take a name."""
MORE = (
    *("seed_everything", "name", "requires_plugins", "model.seed", "model.trainable_modules", "model.lora.rank"),
    *("model.lora.targets", "model.optimizer.init_args.betas", "model.optimizer.init_args.weight_decay"),
    *("model.optimizer", "model.lr_scheduler", "model.lr_scheduler.init_args.warmup_steps"),
    *("model.rollout", "model.rollout.accept_threshold", "model.rollout.reward_timeout"),
    *("model.rollout.image_sampling.guidance", "model.rollout.image_sampling.temperature"),
    *("model.rollout.answer_sampling.temperature", "model.evaluation", "model.evaluation.num_understanding"),
    *("model.evaluation.num_diversity_prompts", "data.seed", "trainer.devices", "trainer.num_nodes"),
    *("trainer.max_steps", "trainer.max_time", "trainer.precision", "trainer.strategy", "trainer.plugins"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.logger"),
    *("trainer.val_check_interval", "trainer.limit_val_batches", "trainer.log_every_n_steps", "guards"),
    *("guards.max_accuracy_drop", "guards.zero_variance_patience", "images.count", "images.columns"),
    *("results", "export"),
)
"""Options that the shipped configs leave at their defaults."""


def mutated(config: Config, seed: int) -> Config:
    """A copy of a config with one to three mutations.

    Args:
        config: A valid config.
        seed: Selects the mutations.
    """
    rng, config = Random(f"spoil {seed}"), copy.deepcopy(config)
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(MUTATIONS)(config, rng)
    return config


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The path of every key and index, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def _owner(config: Config, path: Path) -> Any:
    owner: Any = config
    for key in path[:-1]:
        owner = owner[key]
    return owner


def _random_path(config: Config, rng: Random) -> tuple[Any, Any]:
    """A random path, as its owner and its key."""
    path = rng.choice([*paths(config), ("name",)])
    return _owner(config, path), path[-1]


def delete(config: Config, rng: Random) -> None:
    owner, key = _random_path(config, rng)
    if isinstance(owner, list) or key in owner:
        del owner[key]


def misspell(config: Config, rng: Random) -> None:
    keys = [path for path in paths(config) if isinstance(path[-1], str)]
    path = rng.choice(keys or [("name",)])
    owner, key = _owner(config, path), str(path[-1])
    at = rng.randrange(len(key))
    owner[key[:at] + rng.choice(("", "x", ".", " ", key[at] * 2)) + key[at + 1 :]] = owner.pop(key, 1)


def replace(config: Config, rng: Random) -> None:
    owner, key = _random_path(config, rng)
    owner[key] = rng.choice(WRONG)


def rename(config: Config, rng: Random) -> None:
    named = [path for path in paths(config) if path[-1] in NAMED]
    path = rng.choice(named or [("name",)])
    _owner(config, path)[path[-1]] = rng.choice(NAMES)


def swap(config: Config, rng: Random) -> None:
    if len(config) > 1:
        one, other = rng.sample(sorted(config, key=str), 2)
        config[one], config[other] = config[other], config[one]


def add(config: Config, rng: Random) -> None:
    *above, last = rng.choice(MORE).split(".")
    owner: Any = config
    for name in above:
        if not isinstance(owner.get(name), dict):
            owner[name] = {}
        owner = owner[name]
    owner[last] = rng.choice(WRONG)


MUTATIONS: tuple[Callable[[Config, Random], None], ...] = (delete, misspell, replace, replace, rename, swap, add, add)
