"""How good was it? One number a sample."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import Answers, Example, Images

ROUNDING = 1e-6
"""How far below a threshold a score may lie, for scores are sums of floats."""


class Reward(ABC):
    """Scores what the model drew and answered.

    Args:
        weight: Its share in the sum of all rewards.
        standardize: Where the samples of a group are compared, count it in standard deviations of its group, so that
            rewards of different spread weigh alike. Scores that are logged and accepted stay as they are.

    Example:
        >>> class Short(Reward):
        ...     accept = 1.0
        ...
        ...     def score(self, examples, images, answers):
        ...         return 1 / answers.mask.sum(1)
    """

    needs_pixels: ClassVar[bool] = False
    """Whether `images.pixels` must be decoded before `score`."""
    accept_threshold: float | None = None
    """Least score that says "this drawing is right"; None where a score says how good, and not whether right."""

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

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        """Which samples are right by its own scores, or None where it cannot tell; for most, `accept_threshold` is all it takes.

        Args:
            examples: What was asked for.
            scores: What `score` returned.

        Shapes:
            scores (B,); returns (B,) bool, or None.
        """
        return None if self.accept_threshold is None else reaches(scores, self.accept_threshold)


def reaches(scores: Tensor, least: float | Tensor) -> Tensor:
    """Whether each score is at least so much, but for rounding.

    Shapes:
        scores (B,), least a number or (B,); returns (B,) bool.

    Example:
        >>> import torch
        >>> reaches(torch.tensor([0.9, 0.9999999]), 1.0).tolist()
        [False, True]
    """
    return scores >= least - ROUNDING
