"""The contract of prompts plugins, which are sources of examples."""

from abc import ABC, abstractmethod
from typing import ClassVar

from unirl.types import Example


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
