"""The oracle reward: a judge's verdict, for diagnosis."""

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import override

from unirl.judges import Judge
from unirl.judges.verdict_checks import checked_verdicts
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class Oracle(Reward):
    """1 where a judge calls the image correct, 0 otherwise. An upper bound for comparisons, not self-improvement.

    Results are measured with the judge, so they must not be reported for a model that was trained with it. The
    difference to the same run with self-rewards shows what errors of the self-reward cost.

    Args:
        judge: The judge.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
    """

    needs_pixels = True
    accept_threshold = 1.0

    def __init__(self, judge: Judge, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.judge = judge

    @override
    def check_example(self, example: Example) -> None:
        self.judge.check_example(example)

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The judge's verdicts.

        Shapes:
            returns (B,), float32.
        """
        assert images.pixels is not None
        return checked_verdicts(self.judge, examples, images.pixels).float()
