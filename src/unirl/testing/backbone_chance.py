"""Random numbers from elsewhere than the generator: found out."""

import random
from collections.abc import Callable
from typing import TypeVar

import torch

from unirl.testing.backbone_base import require

T = TypeVar("T")


def untouched(method: str, call: Callable[[], T], seed: int = 1) -> T:
    """What a call returns; fails if the call used Python's or torch's global random numbers.

    Args:
        method: Whose fault it would be.
        call: What to run.
        seed: Of the global random numbers, which must not matter.
    """
    kept = random.getstate()
    random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            ours, pythons = torch.get_rng_state(), random.getstate()
            result = call()
            require(
                torch.equal(ours, torch.get_rng_state()),
                f"{method}: uses torch's global random numbers; every random number must come from the generator",
            )
            require(
                pythons == random.getstate(),
                f"{method}: uses Python's global random numbers; every random number must come from the generator",
            )
    finally:
        random.setstate(kept)
    return result
