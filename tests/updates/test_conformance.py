"""The shipped update rules pass the conformance tests that plugin authors use."""

from unirl.testing import UpdateConformance
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty, PolicyLoss
from unirl.updates.sft import SFT


class TestSFTByRejectionSampling(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(end_to_end=False)


class TestSFTOnOwnAnswers(UpdateConformance):
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
        return GRPO(kl=KLPenalty(beta=0.05))


class TestGRPOOnMasks(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(
            loss=PolicyLoss(scale_rewards=False, reduction="token"),
            scoring=ImageScoring(likelihood="random_masks", num_masks=2),
        )


class TestGRPOOnSomeSteps(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(answers="all", loss=PolicyLoss(negative_scale=0.5), scoring=ImageScoring(scored_steps=2))


class TestGRPOOnAnswersAlone(UpdateConformance):
    rise = None

    def make(self) -> UpdateRule:
        return GRPO(image_weight=0.0, answers="all", kl=KLPenalty(answer_beta=0.1))
