"""What rewards computed by a pretrained model share: loading, batches, calibration."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.backbones.checkpoints import PretrainedModel
from unirl.errors import UserError, check_minimum
from unirl.rewards.base import Reward, check_not_blank
from unirl.types import Answers, Example, Images


class PretrainedReward(Reward):
    """Scores an image and its prompt by a frozen, pretrained model. Answers are not used.

    The score is `(measure - low) / (high - low)`, clamped to [0, 1]. A subclass implements `load` and `measure`. The
    model is loaded once, when the run starts. Override `pretrained_models` where `model` is not a checkpoint with a
    config.json, or where others are loaded, too.

    Args:
        model: A hub id, a folder, or `package:folder`.
        low: Measure that is mapped to 0.
        high: Measure that is mapped to 1.
        batch_size: Images of a forward pass.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least calibrated score of an accepted sample. None gives no verdict.

    Raises:
        UserError: `low` is not below `high`, or `batch_size` is below 1.

    Example:
        >>> class Brightness(PretrainedReward):
        ...     def load(self):
        ...         return torch.nn.AdaptiveAvgPool2d(1)
        ...
        ...     def measure(self, prompts, pixels):
        ...         return self.loaded(pixels).mean((1, 2, 3))
        >>> pixels, ids = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 1, dtype=torch.long)
        >>> examples = [Example("a dog", "", "", "")] * 2
        >>> reward = Brightness("mean", low=0.0, high=2.0)
        >>> reward.score(examples, Images(ids, pixels), Answers(ids, ids.bool(), ["", ""])).tolist()
        [0.25, 0.25]
    """

    needs_pixels = True

    def __init__(
        self,
        model: str,
        low: float,
        high: float,
        batch_size: int = 64,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
    ) -> None:
        super().__init__(weight, standardize)
        if not low < high:
            raise UserError(f"{self.name}: low {low} must be below high {high}; they are mapped to 0 and 1")
        check_minimum(1, self.name, batch_size=batch_size)
        self.model, self.low, self.high = model, low, high
        self.batch_size, self.accept_threshold = batch_size, accept_threshold

    @abstractmethod
    def load(self) -> Any:
        """Load the model, frozen, and what prepares its inputs. Called once.

        Returns:
            Anything; `loaded` holds it.

        Raises:
            UserError: `model` is no such model, or cannot be read.
        """

    @cached_property
    def loaded(self) -> Any:
        """What `load` returned."""
        return self.load()

    def __getstate__(self) -> dict[str, Any]:
        # Copies load the model again: some models of transformers cannot be pickled, and all are large.
        return {name: value for name, value in vars(self).items() if name != "loaded"}

    @abstractmethod
    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """The model's output before calibration. Called without gradient and without autocast.

        Args:
            prompts: The prompt of each image.
            pixels: The images, in [0, 1], float32.

        Shapes:
            pixels (B, 3, H, W), B at most `batch_size`; returns (B,).
        """

    @property
    def max_prompt_length(self) -> int | None:
        """Most tokens of a prompt that the loaded model reads; the rest is cut off. None where it is not known.

        Longer prompts are counted when a run starts, by `prompt_lengths`. Optional.
        """
        return None

    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens of each prompt, with those that are added; needed by `max_prompt_length`.

        Args:
            prompts: Different prompts.
        """
        raise TypeError(f"{type(self).__name__} has a max_prompt_length: define prompt_lengths")

    @property
    @override
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return (PretrainedModel(self.model),)

    @override
    def attach(self, backbone: Backbone | None) -> None:
        _ = self.loaded

    @override
    def check_example(self, example: Example) -> None:
        check_not_blank(example, "prompt")

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The calibrated measure of each image and its prompt.

        Shapes:
            returns (B,), float32, in [0, 1].
        """
        assert images.pixels is not None
        prompts, size = [example.prompt for example in examples], self.batch_size
        with torch.autocast(images.pixels.device.type, enabled=False):
            measures = [
                self.measure(prompts[i : i + size], images.pixels[i : i + size].float())
                for i in range(0, len(prompts), size)
            ]
        return ((torch.cat(measures).float() - self.low) / (self.high - self.low)).clamp(0, 1)
