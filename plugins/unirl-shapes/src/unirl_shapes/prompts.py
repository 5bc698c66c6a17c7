"""Prompts, questions and answers of the shapes world."""

import math
from collections.abc import Mapping
from random import Random

from unirl import Example, UserError
from unirl.prompts import Prompts
from unirl_shapes.examples import all_examples, sample_example
from unirl_shapes.questions import with_questions
from unirl_shapes.vocabulary import CATEGORIES


class ShapesPrompts(Prompts):
    """Samples a category, then one of its training combinations uniformly.

    Args:
        weights: Relative frequency of each category; categories that are not named do not occur. By default all are
            equally frequent.
        question_sets: Ask several questions about an image, see `unirl_shapes.questions`. Only the reward `questions`
            reads all of them.

    Raises:
        UserError: a category is unknown, a weight is negative or not finite, or all weights are 0.
    """

    categories = CATEGORIES

    def __init__(self, weights: Mapping[str, float] | None = None, question_sets: bool = False) -> None:
        weights = dict.fromkeys(CATEGORIES, 1.0) if weights is None else weights
        for name, weight in weights.items():
            if name not in CATEGORIES:
                raise UserError(f"shapes: there is no category {name!r}; categories are {', '.join(CATEGORIES)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"shapes: the weight of category {name!r} is {weight}; it must be finite and 0 or more")
        if not sum(weights.values()):
            raise UserError("shapes: the weights of the categories sum to 0; at least one must be above 0")
        self.question_sets = question_sets
        self._weights = [weights.get(name, 0.0) for name in CATEGORIES]

    def sample(self, seed: int, index: int) -> Example:
        """A training example; it depends on `(seed, index)` only and is never a held-out combination."""
        rng = Random(f"shapes {seed} {index}")
        (category,) = rng.choices(CATEGORIES, self._weights)
        return self._train_example(category, rng)

    def category_shares(self) -> dict[str, float]:
        """The weights of the categories that occur, scaled to sum to 1."""
        shares = zip(CATEGORIES, self._weights, strict=True)
        return {name: weight / sum(self._weights) for name, weight in shares if weight > 0}

    def sample_category(self, seed: int, index: int, category: str) -> Example:
        """A training example of a category; it depends on the arguments only."""
        if category not in self.category_shares():
            names = ", ".join(self.category_shares())
            raise UserError(f"shapes: no category {category!r} in training; categories are {names}")
        return self._train_example(category, Random(f"shapes {seed} {index} {category}"))

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """Exactly `count` held-out examples, the categories in turn; their examples repeat where there are too few."""
        pools = []
        for category in CATEGORIES:
            pool = list(all_examples(category, "held_out"))
            Random(f"held out {seed} {category}").shuffle(pool)
            pools.append(pool)
        turns = (divmod(i, len(pools)) for i in range(count))
        examples = [pools[category][turn % len(pools[category])] for turn, category in turns]
        if not self.question_sets:
            return examples
        return [with_questions(example, Random(f"questions {example.prompt}")) for example in examples]

    def _train_example(self, category: str, rng: Random) -> Example:
        example = sample_example(rng, "train", category)
        return with_questions(example, rng) if self.question_sets else example
