"""How good was it? One number a sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import Answers, Example, Images


class Reward(ABC):
    """Scores what the model drew and answered.

    Args:
        weight: Its share in the sum of all rewards.
        standardize: Where the samples of a group are compared, count it in standard deviations of its group, so that
            rewards of different spread weigh alike. Scores that are logged and accepted stay as they are.
    """

    needs_pixels: ClassVar[bool] = False
    """Whether `images.pixels` must be decoded before `score`."""

    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        self.weight, self.standardize = weight, standardize

    def attach(self, backbone: Backbone) -> None:  # noqa: B027 - an optional hook
        """Look at the model when it is built: for rewards that ask it something."""

    @property
    def name(self) -> str:
        """What logs and errors call it."""
        return type(self).__name__.lower()

    @abstractmethod
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """One finite number per sample.

        Shapes:
            returns (B,), float32.
        """
