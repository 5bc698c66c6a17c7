"""The likelihood reward: the model's own probability of the correct answer."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.functional import geometric_mean
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class Likelihood(Reward):
    """The model's own probability of the correct answer about its image, in [0, 1]: a soft self-reward.

    It is computed by the model in training, so it changes during training. The geometric mean over tokens does not
    depend on the length of the answer.

    Args:
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least probability of an accepted sample. None gives no verdict.
    """

    def __init__(self, weight: float = 1.0, standardize: bool = False, accept_threshold: float | None = 0.5) -> None:
        super().__init__(weight, standardize)
        self.accept_threshold = accept_threshold
        self._backbone: Backbone | None = None

    @override
    def attach(self, backbone: Backbone) -> None:
        self._backbone = backbone

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The geometric mean of the probabilities of the correct answer's tokens.

        Shapes:
            returns (B,), float32.
        """
        assert self._backbone is not None, "attach comes first"
        target = self._backbone.tokenize_answers([example.answer for example in examples])
        log_probs = self._backbone.answer_log_probs(images, [example.question for example in examples], target)
        return geometric_mean(log_probs, target.mask)
