"""The contract of rewards, which score samples."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.backbones.checkpoints import PretrainedModel
from unirl.errors import UserError
from unirl.types import Answers, Example, Images

ROUNDING = 1e-6
"""Tolerance of comparisons with a threshold, since scores are sums of floats."""


def check_not_blank(example: Example, *names: str) -> None:
    """Refuse an example without a text that a reward needs.

    Args:
        example: Any example.
        names: Of "prompt", "question" and "answer".

    Raises:
        UserError: one of them is blank.

    Example:
        >>> check_not_blank(Example("a cup", "how many ?", "one"), "question", "answer")
    """
    for name in names:
        if not getattr(example, name).strip():
            raise UserError(f"it has no {name}")


class Reward(ABC):
    """Scores generated images and the answers about them, one number for each sample.

    `score` is required; a reward that cannot score every example says so in `check_example`. Set `accept_threshold`, or
    override `accepts`, where a score decides whether a sample is correct: update rules train answers, and images in
    rejection sampling, on accepted samples only.

    Args:
        weight: Weight in the sum of all rewards. With weight 0, a reward is logged and not trained on.
        standardize: Divide by the standard deviation within groups before advantages are computed, so that rewards of
            different scale count alike. Logged scores and accepted samples stay the same.

    Example:
        >>> class Short(Reward):
        ...     accept_threshold = 0.5
        ...
        ...     def score(self, examples, images, answers):
        ...         return 1 / answers.mask.sum(1)
        >>> import torch
        >>> ids = torch.zeros(2, 4, dtype=torch.long)
        >>> answers = Answers(ids, torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]).bool(), ["a", "a b c d"])
        >>> scores = Short().score([], Images(ids), answers)
        >>> scores.tolist(), Short().accepts([], scores).tolist()
        ([1.0, 0.25], [True, False])
    """

    needs_pixels: ClassVar[bool] = False
    """Whether `score` reads `images.pixels`. If no reward does, images need not be decoded."""
    all_questions: ClassVar[bool] = False
    """Whether `score` gets the answers to all questions about each image, and not only those to the first."""
    accept_threshold: float | None = None
    """Least score of an accepted sample. None where a score does not decide whether a sample is correct."""

    def __init__(self, weight: float = 1.0, standardize: bool = False) -> None:
        self.weight, self.standardize = weight, standardize

    def attach(self, backbone: Backbone) -> None:  # noqa: B027 - an optional hook
        """Called with the built model, before anything is scored: for rewards that use the model, or load their own.

        Args:
            backbone: The model, built.
        """

    def check_example(self, example: Example) -> None:  # noqa: B027 - an optional hook
        """Refuse an example that this reward cannot score, such as one without what it compares answers with.

        Called before the model is loaded, for all prompts that are known then: a run does not start with a prompt that
        would end it. By default every example can be scored.

        Args:
            example: A training example or a held-out one.

        Raises:
            UserError: why it cannot be scored. The caller names reward, prompt and line, and says what to do.
        """

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        """The checkpoints that `attach` loads, for `unirl doctor`. By default none."""
        return ()

    @property
    def name(self) -> str:
        """Name in logs and errors: the name of the class in lower case."""
        return type(self).__name__.lower()

    @property
    def gives_verdict(self) -> bool:
        """Whether `accepts` may return a verdict: a threshold is set, or the method is overridden."""
        return self.accept_threshold is not None or type(self).accepts is not Reward.accepts

    @abstractmethod
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """Score a batch of samples. Called without gradient.

        Args:
            examples: Prompts, questions and correct answers, one for each sample.
            images: The generated images; with pixels where `needs_pixels` is set.
            answers: The model's answers about them: B rows, one for the first question about each image. With
                `all_questions` B x k rows, those of `unirl.question_rows(examples)`; rows that repeat the first
                question of an image have an all-False mask.

        Shapes:
            returns (B,), finite, on the device of the answers; float32 or what converts to it.
        """

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor | None:
        """Which samples this reward accepts as correct. By default those that reach `accept_threshold`.

        Args:
            examples: One for each sample.
            scores: What `score` returned.

        Returns:
            None where the reward gives no verdict.

        Shapes:
            scores (B,); returns (B,) bool, or None.
        """
        return None if self.accept_threshold is None else reaches(scores, self.accept_threshold)


def reaches(scores: Tensor, threshold: float | Tensor) -> Tensor:
    """Whether each score is at least a threshold, up to rounding.

    Args:
        scores: The scores.
        threshold: One number, or one for each sample.

    Shapes:
        scores (B,), threshold a number or (B,); returns (B,) bool.

    Example:
        >>> import torch
        >>> reaches(torch.tensor([0.9, 0.9999999]), 1.0).tolist()
        [False, True]
    """
    return scores >= threshold - ROUNDING
