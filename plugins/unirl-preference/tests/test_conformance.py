"""Conformance of the rewards."""

from pathlib import Path

import pytest

from unirl.rewards import Reward
from unirl.testing import RewardConformance
from unirl_preference.clips import HPSv2, PickScore
from unirl_preference.vlm import VLMJudge


class TestPickScore(RewardConformance):
    @pytest.fixture(autouse=True)
    def _model(self, clip_folder: Path) -> None:
        self.model = str(clip_folder)

    def make(self) -> Reward:
        return PickScore(self.model, low=-15.0, high=15.0)


class TestHPSv2(TestPickScore):
    def make(self) -> Reward:
        return HPSv2(self.model, low=-1.0, high=1.0, accept_threshold=0.5)


class TestVLMJudge(RewardConformance):
    @pytest.fixture(autouse=True)
    def _model(self, vlm_folder: Path) -> None:
        self.model = str(vlm_folder)

    def make(self) -> Reward:
        return VLMJudge(self.model, batch_size=5)
