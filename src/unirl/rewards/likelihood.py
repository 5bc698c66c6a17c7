"""Rewards by the model in training, and the likelihood reward: its own probability of the correct answer."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional import geometric_mean
from unirl.rewards.base import Reward, check_not_blank
from unirl.types import Answers, Example, Images


class ModelReward(Reward):
    """A reward that asks the model in training, so it changes during training.

    Args:
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
    """

    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self._backbone: Backbone | None = None

    @override
    def attach(self, backbone: Backbone) -> None:
        self._backbone = backbone

    @property
    def backbone(self) -> Backbone:
        """The model.

        Raises:
            UserError: `attach` was not called.
        """
        if self._backbone is None:
            raise UserError(f"the reward {self.name!r} asks the model in training; call attach(backbone) first")
        return self._backbone

    def mean_probability(self, images: Images, questions: Sequence[str], answers: Sequence[str]) -> Tensor:
        """The geometric mean of the probabilities of each answer's tokens, given image and question.

        Args:
            images: B images.
            questions: A question about each.
            answers: An answer to each.

        Shapes:
            returns (B,), float32.
        """
        target = self.backbone.tokenize_answers(answers)
        return geometric_mean(self.backbone.answer_log_probs(images, questions, target), target.mask)


class Likelihood(ModelReward):
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

    @override
    def check_example(self, example: Example) -> None:
        check_not_blank(example, "question", "answer")

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The geometric mean of the probabilities of the correct answer's tokens.

        Shapes:
            returns (B,), float32.
        """
        return self.mean_probability(images, [e.question for e in examples], [e.answer for e in examples])
