"""How likely does the model itself hold the right answer?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.functional.policy_gradient import geometric_mean
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class Likelihood(Reward):
    """The model's own probability of the right answer about its drawing, in [0, 1]: a soft self-reward.

    Where the words of the answer say right or wrong, this says how surely. It is asked of the model in training, so it
    moves with it; the geometric mean over tokens makes long answers no less likely than short ones.

    Args:
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least probability with which it accepts a drawing; None gives no verdict.
    """

    def __init__(self, weight: float = 1.0, standardize: bool = False, accept_threshold: float | None = 0.5) -> None:
        super().__init__(weight, standardize)
        self.accept_threshold = accept_threshold
        self._backbone: Backbone | None = None

    def attach(self, backbone: Backbone) -> None:
        self._backbone = backbone

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The probability of each right answer, averaged over its tokens.

        Shapes:
            returns (B,), float32.
        """
        assert self._backbone is not None, "attach comes first"
        right = self._backbone.tokenize_answers([example.answer for example in examples])
        log_probs = self._backbone.answer_log_probs(images, [example.question for example in examples], right)
        return geometric_mean(log_probs, right.mask)
