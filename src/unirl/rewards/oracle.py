"""A judge as a reward: what would training reach with a critic that is never wrong?"""

from collections.abc import Sequence

from torch import Tensor

from unirl.judges import Judge
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class Oracle(Reward):
    """1 where a judge calls the drawing right, 0 elsewhere.

    A diagnosis and never self-improvement: the judge is what results are measured with. It shows what an update rule
    can do by itself; the gap to the same run with the model's own answers is what the critic costs.

    Args:
        judge: Who decides.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
    """

    needs_pixels = True
    accept_threshold = 1.0

    def __init__(self, judge: Judge, weight: float = 1.0, standardize: bool = False) -> None:
        super().__init__(weight, standardize)
        self.judge = judge

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The judge's verdicts.

        Shapes:
            returns (B,), float32.
        """
        assert images.pixels is not None
        return self.judge.verdicts(examples, images.pixels).float()
