"""The contract of prompts plugins, which are sources of examples."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from random import Random
from typing import ClassVar

from unirl.errors import UserError
from unirl.types import Example
from unirl.unicode import normalize_text

MAX_SEARCHED = 10_000
"""Training examples among which `Prompts.sample_category` and `Prompts.find` search."""
MAX_HELD_OUT = 1_000
"""Held-out examples among which `Prompts.find` searches."""
_STRIDE = 2**31 - 1
"""Distance of the indices that it searches. A prime, so that a source that repeats its examples shows all of them."""


class Prompts(ABC):
    """A source of training examples and held-out examples. Examples are text: training sees no image but its own.

    Example:
        >>> class Animals(Prompts):
        ...     names = ("cat", "dog", "fox", "owl")
        ...
        ...     def example(self, name):
        ...         return Example(f"a photo of a {name}", "Which animal is this?", name, "animals")
        ...
        ...     def sample(self, seed, index):
        ...         return self.example(self.names[(seed + index) % 3])
        ...
        ...     def held_out(self, count, seed=0):
        ...         return [self.example("owl")][:count]
        >>> Animals().sample(seed=0, index=1).prompt
        'a photo of a dog'
    """

    categories: ClassVar[tuple[str, ...]] = ()
    """All categories, in the order of tables. Empty where they are not known in advance."""

    @abstractmethod
    def sample(self, seed: int, index: int) -> Example:
        """A training example. It depends on the arguments only, so that resumed runs see the same prompts.

        Args:
            seed: Seed of the run's data.
            index: Number of the example, from 0.
        """

    @abstractmethod
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """Examples that `sample` never returns, spread evenly over the categories.

        Args:
            count: Number of examples wanted.
            seed: The same seed gives the same examples.

        Returns:
            At most `count` examples; none where the source has no held-out examples.
        """

    def find(self, prompt: str) -> Example | None:
        """The example of a prompt, which `unirl sample --prompts` asks about. Optional.

        By default it is searched among `train_examples`, or else among the first 10,000 training examples, and among
        1,000 held-out ones. Override it where the examples of a prompt are known.

        Args:
            prompt: Case, spaces between words and the form of Unicode do not matter.

        Returns:
            None where no such example is found.

        Example:
            >>> from unirl.prompts import GenEval
            >>> example = GenEval().sample(seed=0, index=3)
            >>> GenEval().find(example.prompt.upper()).answer == example.answer
            True
        """
        normalized, listed = normalize_text(prompt), self.train_examples()
        sampled = (self.sample(0, index) for index in range(0 if listed else MAX_SEARCHED))
        every = chain(listed, self.held_out(MAX_HELD_OUT), sampled)
        return next((example for example in every if normalize_text(example.prompt) == normalized), None)

    def location(self, example: Example) -> str | None:
        """Where an example is written, such as `FILE:LINE`, for messages about it. Optional; None by default.

        Args:
            example: One of this source.
        """
        return None

    # --- for adaptive sampling: a source that sets `categories`, or that is a finite list, needs no more ---

    def train_examples(self) -> Sequence[Example]:
        """All training examples, where they are a finite list. Optional; empty by default.

        The adaptive sampler then draws single prompts. Held-out examples must not be among them.
        """
        return ()

    def category_shares(self) -> dict[str, float]:
        """The share of each category among the training examples. Optional.

        Returns:
            Shares above 0 that sum to 1, of the categories that occur. By default those of `train_examples`, or equal
            shares of `categories`; empty where neither is known.

        Example:
            >>> from unirl.prompts import GenEval
            >>> GenEval({"counting": 1.0, "colors": 3.0}).category_shares()
            {'counting': 0.25, 'colors': 0.75}
        """
        counts = Counter(example.category for example in self.train_examples()) or Counter(self.categories)
        return {category: count / counts.total() for category, count in counts.items()}

    def sample_category(self, seed: int, index: int, category: str) -> Example:
        """A training example of a category. Optional; like `sample`, it depends on the arguments only.

        By default an example of `train_examples`, or the first of this category among 10,000 that `sample` returns.
        Override it where a category can be sampled directly.

        Args:
            seed: Seed of the run's data.
            index: Number of the example, from 0.
            category: One of `category_shares`.

        Raises:
            UserError: no example of the category was found.
        """
        listed = [example for example in self.train_examples() if example.category == category]
        if listed:
            return Random(f"{seed}/{index}").choice(listed)
        shares = self.category_shares()
        if not shares or category in shares:
            for attempt in range(MAX_SEARCHED):
                example = self.sample(seed, index + attempt * _STRIDE)
                if example.category == category:
                    return example
        raise UserError(
            f"{type(self).__name__}: no training example of the category {category!r} was found; `categories` or "
            "`category_shares` must name the categories of `sample` only; define `sample_category` where one is rare"
        )
