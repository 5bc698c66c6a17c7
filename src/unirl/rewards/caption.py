"""The caption reward: the model's own probability of the prompt, given the image."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.rewards.base import check_not_blank
from unirl.rewards.likelihood import ModelReward
from unirl.types import Answers, Example, Images


class CaptionReward(ModelReward):
    """The model's own probability of describing the image by the words of its prompt, in [0, 1].

    A dense self-reward that needs no question and no answer, for prompts of any kind. The geometric mean over tokens
    does not depend on the length of the prompt. How high it is depends on how likely such words are at all, so images
    of different prompts do not compare: use it where the samples of a group are compared, and `standardize` it beside
    other rewards.

    Args:
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        question: What the model is asked for. Take words that the model was trained on.
        accept_threshold: Least probability of an accepted sample. None gives no verdict.

    Raises:
        UserError: the question is empty.

    Example:
        >>> from unirl.testing import TinyBackbone
        >>> backbone, reward = TinyBackbone(), CaptionReward(question="what is it")
        >>> backbone.build()
        >>> reward.attach(backbone)
        >>> examples, images = [Example("a red cup")], Images(torch.zeros(1, 4, dtype=torch.long))
        >>> 0 < reward.score(examples, images, backbone.tokenize_answers(["a cup"])).item() < 1
        True
    """

    def __init__(
        self,
        weight: float = 1.0,
        standardize: bool = False,
        question: str = "Describe the image.",
        accept_threshold: float | None = None,
    ) -> None:
        super().__init__(weight, standardize)
        if not question.strip():
            raise UserError(f"caption: question is {question!r}; write what the model is asked for")
        self.question, self.accept_threshold = question, accept_threshold

    @property
    @override
    def name(self) -> str:
        return "caption"

    @override
    def check_example(self, example: Example) -> None:
        check_not_blank(example, "prompt")

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The geometric mean of the probabilities of the prompt's tokens.

        Shapes:
            returns (B,), float32.
        """
        return self.mean_probability(images, [self.question] * len(examples), [e.prompt for e in examples])
