"""Prompts, questions and answers about the world; never a picture."""

import math
from collections.abc import Mapping
from random import Random

from unirl.errors import UserError, nearest
from unirl.prompts.base import Prompts
from unirl.types import Example
from unirl_shapes.examples import all_examples, draw_example
from unirl_shapes.vocabulary import CATEGORIES


class ShapesPrompts(Prompts):
    """Draws a category, then one of its training combinations, each with equal chance.

    Args:
        weights: How often each category comes, relative to the others; those not named come never. None: all alike.

    Raises:
        UserError: A category is unknown, a weight isn't a number from 0 on, or all are 0.
    """

    categories = CATEGORIES

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        weights = dict.fromkeys(CATEGORIES, 1.0) if weights is None else weights
        for name, weight in weights.items():
            if name not in CATEGORIES:
                raise UserError(f"weights: no category {name!r}; did you mean {nearest(name, CATEGORIES)}?")
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"weights: {name} must be a finite number from 0 on, got {weight}")
        if not sum(weights.values()):
            raise UserError(f"weights: at least one must be above 0; categories are {', '.join(CATEGORIES)}")
        self._weights = [weights.get(name, 0.0) for name in CATEGORIES]

    def sample(self, seed: int, index: int) -> Example:
        """Training example number `index`: a pure function of `(seed, index)`; never a held-out combination."""
        rng = Random(f"shapes {seed} {index}")
        (category,) = rng.choices(CATEGORIES, self._weights)
        return draw_example(rng, "train", category)

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """Exactly `count` held-out examples, category by turn; a category that runs out starts again."""
        pools = []
        for category in CATEGORIES:
            pool = list(all_examples(category, "held_out"))
            Random(f"held out {seed} {category}").shuffle(pool)
            pools.append(pool)
        turns = (divmod(i, len(pools)) for i in range(count))
        return [pools[which][turn % len(pools[which])] for turn, which in turns]
