"""Conformance of both update rules."""

from unirl.testing import UpdateConformance
from unirl_dpo.best_of_n import BestOfN
from unirl_dpo.dpo import DPO


class TestDPO(UpdateConformance):
    def make(self) -> DPO:
        return DPO()


class TestIPOOnAllPairs(UpdateConformance):
    def make(self) -> DPO:
        return DPO(variant="ipo", pairs="all", reduction="mean", sft_weight=0.1)


class TestBestOfN(UpdateConformance):
    def make(self) -> BestOfN:
        return BestOfN()


class TestBestOfNWithoutThreshold(UpdateConformance):
    def make(self) -> BestOfN:
        return BestOfN(select="best")
