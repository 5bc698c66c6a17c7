"""Conformance of the built-in rewards."""

from pathlib import Path

import pytest

from unirl.backbones.showo import Showo
from unirl.rewards import CLIP, Attribute, CaptionReward, Keyword, Likelihood, Oracle, Questions, Reward
from unirl.testing import RewardConformance
from unirl_shapes.judge import ShapesJudge


class TestKeyword(RewardConformance):
    def make(self) -> Reward:
        return Keyword()


class TestKeywordCount(RewardConformance):
    high = 10.0

    def make(self) -> Reward:
        return Keyword(normalize=False, ordered=True)


class TestAttribute(RewardConformance):
    def make(self) -> Reward:
        return Attribute()


class TestLikelihood(RewardConformance):
    @pytest.fixture(autouse=True)
    def _backbone(self, shapes_checkpoint: Path) -> None:
        self.backbone = Showo.from_pretrained(str(shapes_checkpoint))

    def make(self) -> Reward:
        reward = Likelihood()
        reward.attach(self.backbone)
        return reward


class TestCaption(TestLikelihood):
    def make(self) -> Reward:
        reward = CaptionReward(question="what is it ?")
        reward.attach(self.backbone)
        return reward


class TestQuestions(TestLikelihood):
    def make(self) -> Reward:
        reward = Questions()
        reward.attach(self.backbone)
        return reward


class TestCLIP(RewardConformance):
    def make(self) -> Reward:
        return CLIP("unirl_shapes:checkpoints/clip", low=-1.0, high=1.0)


class TestCLIPWithThreshold(TestCLIP):
    def make(self) -> Reward:
        return CLIP("unirl_shapes:checkpoints/clip", low=-1.0, high=1.0, accept_threshold=0.5)


class TestOracle(RewardConformance):
    def make(self) -> Reward:
        return Oracle(ShapesJudge())
