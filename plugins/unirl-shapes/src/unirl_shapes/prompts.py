"""Prompts, questions and answers of the shapes world."""

import math
from collections.abc import Mapping
from random import Random
from typing import ClassVar

from unirl import Example, UserError
from unirl.prompts import Prompts, normalize_text
from unirl_shapes.examples import all_examples, check_categories, held_out_examples, sample_example
from unirl_shapes.questions import with_questions
from unirl_shapes.vocabulary import ALL_CATEGORIES, CATEGORIES, COMPLEX


class ShapesPrompts(Prompts):
    """Samples a category, then one of its training combinations uniformly.

    Args:
        weights: Relative frequency of each category; categories that are not named do not occur. By default the six of
            GenEval are equally frequent. With a weight for "complex", prompts that combine these occur, too, in
            training and among the held-out ones.
        question_sets: Ask several questions about an image, see `unirl_shapes.questions`. Only the reward `questions`
            reads all of them.

    Raises:
        UserError: a category is unknown, a weight is negative or not finite, or all weights are 0.
    """

    categories: ClassVar[tuple[str, ...]] = CATEGORIES

    def __init__(self, weights: Mapping[str, float] | None = None, question_sets: bool = False) -> None:
        weights = dict.fromkeys(CATEGORIES, 1.0) if weights is None else weights
        for name, weight in weights.items():
            check_categories([name])
            if not (math.isfinite(weight) and weight >= 0):
                raise UserError(f"shapes: the weight of category {name!r} is {weight}; it must be finite and 0 or more")
        if not sum(weights.values()):
            raise UserError("shapes: the weights of the categories sum to 0; at least one must be above 0")
        self.question_sets = question_sets
        if weights.get(COMPLEX):
            self.categories = ALL_CATEGORIES  # type: ignore[misc]  # of other sources, all have the same
        self._weights = [weights.get(name, 0.0) for name in self.categories]

    def sample(self, seed: int, index: int) -> Example:
        """A training example; it depends on `(seed, index)` only and is never a held-out combination."""
        rng = Random(f"shapes {seed} {index}")
        (category,) = rng.choices(self.categories, self._weights)
        return self._train_example(category, rng)

    def find(self, prompt: str) -> Example | None:
        """The example of a prompt of any category, whatever the weights are."""
        normalized = normalize_text(prompt)
        every = (example for category in ALL_CATEGORIES for example in all_examples(category))
        example = next((example for example in every if example.prompt == normalized), None)
        if example is None or not self.question_sets:
            return example
        return with_questions(example, Random(f"questions {example.prompt}"))

    def category_shares(self) -> dict[str, float]:
        """The weights of the categories that occur, scaled to sum to 1."""
        shares = zip(self.categories, self._weights, strict=True)
        return {name: weight / sum(self._weights) for name, weight in shares if weight > 0}

    def sample_category(self, seed: int, index: int, category: str) -> Example:
        """A training example of a category; it depends on the arguments only."""
        if category not in self.category_shares():
            names = ", ".join(self.category_shares())
            raise UserError(f"shapes: no category {category!r} in training; categories are {names}")
        return self._train_example(category, Random(f"shapes {seed} {index} {category}"))

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """Exactly `count` held-out examples, the categories in turn; their examples repeat where there are too few.

        The six of GenEval always occur, "complex" where it has a weight.
        """
        examples = held_out_examples(self.categories, count, seed)
        if not self.question_sets:
            return examples
        return [with_questions(example, Random(f"questions {example.prompt}")) for example in examples]

    def _train_example(self, category: str, rng: Random) -> Example:
        example = sample_example(rng, "train", category)
        return with_questions(example, rng) if self.question_sets else example
