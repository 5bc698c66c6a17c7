"""Is this picture right? Never trained against, only measured with."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from unirl.types import Example


class Judge(ABC):
    """Looks at pixels and decides."""

    @abstractmethod
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        """Whether each picture shows what its example asks for.

        Shapes:
            pixels (B, 3, H, W) in [0, 1]; returns (B,) bool.
        """

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], Tensor] | None:
        """Given pictures with questions and true answers, to measure seeing; None where the judge has none.

        Shapes:
            pictures (count, 3, H, W) in [0, 1].
        """
        return None

    def references(self, examples: Sequence[Example]) -> Tensor | None:
        """A right picture for each example, to measure whether drawing follows understanding; None where it has none.

        Shapes:
            pictures (B, 3, H, W) in [0, 1].
        """
        return None
