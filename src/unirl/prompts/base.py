"""What to ask for, and what would be right?"""

from abc import ABC, abstractmethod
from typing import ClassVar

from unirl.types import Example


class Prompts(ABC):
    """A source of examples. It never holds a picture: training sees prompts, questions and answers only."""

    categories: ClassVar[tuple[str, ...]] = ()
    """The categories in the order tables show them; empty where they are not known in advance."""

    @abstractmethod
    def sample(self, seed: int, index: int) -> Example:
        """Training example number `index`: a pure function of `(seed, index)`, so any draw can be made again."""

    @abstractmethod
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        """At most `count` examples that `sample` never gives, spread evenly over the categories; may be empty."""
