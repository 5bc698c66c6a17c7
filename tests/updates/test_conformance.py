"""Every update rule that we ship keeps the contract that third parties are held to."""

from unirl.testing import UpdateConformance
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT


class TestSFTBesideTheDrawing(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(end_to_end=False)


class TestSFTOnWhatItSaid(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(end_to_end=False, answers="self", weight_by_failure_rate=False, num_masks=2)


class TestSFTEndToEnd(UpdateConformance):
    through = True

    def make(self) -> UpdateRule:
        return SFT(end_to_end=True)


class TestSFTOnAllAnswers(UpdateConformance):
    through = True

    def make(self) -> UpdateRule:
        return SFT(end_to_end=True, answers="all")


class TestGRPO(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO()


class TestGRPOWithReference(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(beta=0.05)


class TestGRPOOnMasks(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(likelihood="random_masks", num_masks=2, normalize=False, reduction="token")


class TestGRPOOnSomeSteps(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(answers="all", negative_scale=0.5, scored_steps=2)


class TestGRPOOnAnswersAlone(UpdateConformance):
    rise = None

    def make(self) -> UpdateRule:
        return GRPO(image_weight=0.0, answers="all", answer_beta=0.1)
