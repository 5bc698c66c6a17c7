"""Conformance of the built-in update rules."""

from unirl.testing import UpdateConformance
from unirl.updates import GRPO, SFT, ImageScoring, KLPenalty, PolicyLoss, PosteriorLabels, UpdateRule


class TestSFT(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT()


class TestSFTOnOwnAnswers(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(answer_labels="self", weight_by_failure_rate=False, num_masks=2)


class TestSFTOnPosteriorLabels(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(answer_labels="posterior", posterior=PosteriorLabels(prior=0.6, model="reference"))


class TestSFTWithKLPenalty(UpdateConformance):
    def make(self) -> UpdateRule:
        return SFT(answer_weight=0.0, answer_beta=0.1)


class TestSFTEndToEnd(UpdateConformance):
    end_to_end = True

    def make(self) -> UpdateRule:
        return SFT(end_to_end=True)


class TestSFTEndToEndOnAllAnswers(UpdateConformance):
    end_to_end = True

    def make(self) -> UpdateRule:
        return SFT(end_to_end=True, answer_labels="prompt")


class TestGRPO(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO()


class TestGRPOWithKLPenalty(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(kl=KLPenalty(beta=0.05))


class TestGRPOWithRandomMasks(UpdateConformance):
    def make(self) -> UpdateRule:
        scoring = ImageScoring(likelihood="random_masks", num_masks=2)
        return GRPO(loss=PolicyLoss(scale_rewards=False, reduction="token"), scoring=scoring)


class TestGRPOWithScoredSteps(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(answer_labels="self", loss=PolicyLoss(negative_scale=0.5), scoring=ImageScoring(scored_steps=2))


class TestGRPOOnAnswersOnly(UpdateConformance):
    min_improvement = None

    def make(self) -> UpdateRule:
        return GRPO(image_weight=0.0, answer_labels="self", kl=KLPenalty(answer_beta=0.1))


class TestGRPOOnPosteriorLabels(UpdateConformance):
    def make(self) -> UpdateRule:
        return GRPO(kl=KLPenalty(answer_beta=0.1), answer_labels="posterior")
