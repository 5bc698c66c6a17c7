"""What rewards by a pretrained model share: it is loaded once, frozen, asked in batches, and calibrated."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unirl.errors import UserError, check_minimum
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class PretrainedReward(Reward):
    """Looks at drawing and prompt through a model that somebody else trained; not at the answer.

    The score is `(measure - low) / (high - low)`, cut off at 0 and 1. The model is loaded once and stays on the device
    of the drawings. A subclass says how to `load` and what to `measure`.

    Args:
        model: A hub id, a folder, or `package:folder`.
        low: Measure that counts as 0.
        high: Measure that counts as 1.
        batch: Pictures at a time.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict.

    Raises:
        UserError: `low` is not below `high`, or `batch` is below 1.

    Example:
        >>> class Brightness(PretrainedReward):
        ...     def load(self):
        ...         return torch.nn.AdaptiveAvgPool2d(1)
        ...
        ...     def measure(self, prompts, pixels):
        ...         return self.loaded(pixels).mean((1, 2, 3))
        >>> pixels, nothing = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 1, dtype=torch.long)
        >>> examples = [Example("a dog", "", "", "")] * 2
        >>> reward = Brightness("mean", low=0.0, high=2.0)
        >>> reward.score(examples, Images(nothing, pixels), Answers(nothing, nothing.bool(), ["", ""])).tolist()
        [0.25, 0.25]
    """

    needs_pixels = True

    def __init__(
        self,
        model: str,
        low: float,
        high: float,
        batch: int = 64,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
    ) -> None:
        super().__init__(weight, standardize)
        if not low < high:
            raise UserError(f"{self.name}: low {low} must be below high {high}; they are what counts as 0 and as 1")
        check_minimum(1, self.name, batch=batch)
        self.model, self.low, self.high, self.batch, self.accept_threshold = model, low, high, batch, accept_threshold

    @abstractmethod
    def load(self) -> Any:
        """The frozen model, with what prepares its inputs; called once, when the run's model is built.

        Raises:
            UserError: `model` is no such model, or cannot be read.
        """

    @cached_property
    def loaded(self) -> Any:
        """What `load` gave."""
        return self.load()

    def __getstate__(self) -> dict[str, Any]:
        # A copy loads its own: gigabytes do not belong in a pickle, and some of transformers' models refuse it.
        return {name: value for name, value in vars(self).items() if name != "loaded"}

    @abstractmethod
    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """What the model says, before calibration; called without gradient and outside of autocast.

        Args:
            prompts: What was asked for.
            pixels: What was drawn, in [0, 1].

        Shapes:
            pixels (B, 3, H, W), B at most `batch`; returns (B,).
        """

    def attach(self, backbone: object) -> None:
        _ = self.loaded

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The calibrated measure of each drawing and its prompt.

        Shapes:
            returns (B,), float32, in [0, 1].
        """
        assert images.pixels is not None
        prompts = [example.prompt for example in examples]
        with torch.autocast(images.pixels.device.type, enabled=False):
            measures = [
                self.measure(prompts[i : i + self.batch], images.pixels[i : i + self.batch].float())
                for i in range(0, len(prompts), self.batch)
            ]
        return ((torch.cat(measures).float() - self.low) / (self.high - self.low)).clamp(0, 1)
