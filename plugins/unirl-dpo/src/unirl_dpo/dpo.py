"""Direct preference optimization on pairs of images of the same prompt.

Source: Rafailov et al. 2023 (DPO, arXiv 2305.18290); Wallace et al. 2023 (Diffusion-DPO, arXiv 2311.12908) for images,
and for random terms in place of the exact likelihood.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from unirl import ImageSampling, Rollout, UserError
from unirl.backbones import Backbone
from unirl.functional import decision_weights, zero_loss
from unirl.updates import Reference, ScoringBatch, UpdateRule, scoring_batch
from unirl_dpo.functional import Pairing, Variant, pair_weights, preference_loss, preference_pairs

METRICS = ("loss/dpo", "loss/sft", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")
"""Logged means over pairs, by TRL's names where it has one."""


class DPO(UpdateRule):
    """Direct preference optimization on pairs of images that the model generated and scored itself.

    The chosen and the rejected image are scored under the same random masks by the policy and the reference, where the
    model is a masked one, so that the noise of the masks cancels out. Answers are not trained, see the README.

    Args:
        beta: Strength of the regularization to the untrained model, above 0.
        variant: "sigmoid": DPO. "ipo": IPO, a squared loss whose target is a gap of 1 / (2 beta) nats.
        label_smoothing: Assumed probability that a pair is in the wrong order (cDPO), below 0.5. For "sigmoid" only.
        pairs: "extremes": the best and the worst image of each group. "all": all pairs of a group with different
            scores, which weigh as much as one pair together.
        margin: Least difference of the scores of a pair. Equal scores are never a pair.
        reduction: "sum": log-likelihood of all codes of an image, as published. "mean": of a code on average, which
            equals "sum" with beta / N for N codes.
        likelihood: "random_masks" scores the codes of a masked model under random masks, and all codes of other models.
            "decisions" scores each code in the context in which the sampler fixed it.
        num_masks: Random masks of each image, of "random_masks".
        sft_weight: Weight of the image loss of the chosen image, the mean over its codes. It keeps the probability of
            chosen images from falling together with that of rejected ones.

    Raises:
        UserError: a number is out of range.
    """

    loss_unit = "group"

    def __init__(
        self,
        beta: float = 0.1,
        variant: Variant = "sigmoid",
        label_smoothing: float = 0.0,
        pairs: Pairing = "extremes",
        margin: float = 0.0,
        reduction: Literal["sum", "mean"] = "sum",
        likelihood: Literal["random_masks", "decisions"] = "random_masks",
        num_masks: int = 1,
        sft_weight: float = 0.0,
    ) -> None:
        if not beta > 0:
            raise UserError(f"dpo: beta {beta}; it must be above 0")
        if not 0 <= label_smoothing < 0.5:
            raise UserError(f"dpo: label_smoothing {label_smoothing}; it must be 0 or more, and below 0.5")
        if label_smoothing and variant == "ipo":
            raise UserError("dpo: label_smoothing is for variant sigmoid, and variant is ipo; leave one of them out")
        for name, value, least in (("margin", margin, 0), ("sft_weight", sft_weight, 0), ("num_masks", num_masks, 1)):
            if not value >= least:
                raise UserError(f"dpo: {name} {value}; it must be {least} or more")
        self.beta, self.variant, self.label_smoothing = beta, variant, label_smoothing
        self.pairs, self.margin, self.sft_weight = pairs, margin, sft_weight
        self.reduction, self.likelihood, self.num_masks = reduction, likelihood, num_masks
        self._reference: Reference | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("frac_unpaired_groups", *METRICS)

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"dpo pairs the images of a group, and group_size is {group_size}; take 2 or more")

    def attach(self, backbone: Backbone) -> None:
        self._reference = Reference(backbone)

    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        old = []
        for rng in generators:
            parts = [self._score_reference(backbone, part, sampling, rng) for part in rollout.micro_batches()]
            old.append({"reference": torch.stack(parts).sum(0)})
        return dataclasses.replace(rollout, old_log_probs=old)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        chosen, rejected = self._pairs(rollout)
        weights = pair_weights(chosen, rejected, rollout.group_size, rollout.sample_weights)
        total, now = weights.sum().clamp(min=1e-9), torch.isin(chosen, rollout.rows)
        chosen, rejected, weights = chosen[now], rejected[now], weights[now]
        num_paired = len((chosen // rollout.group_size).unique()) * rollout.group_size
        log_probs = self._score(backbone, rollout, sampling, generator)
        old = rollout.old_log_probs[rollout.iteration] if rollout.old_log_probs else {}
        # A rollout from a checkpoint may have been prepared by another rule.
        prepared = "reference" in old
        reference = old["reference"] if prepared else self._score_reference(backbone, rollout, sampling, generator)
        log_ratios = log_probs - reference
        if self.reduction == "sum":
            log_ratios = log_ratios * rollout.images.codes.shape[1]
        gaps = log_ratios[chosen] - log_ratios[rejected]
        losses = preference_loss(gaps, self.beta, self.variant, self.label_smoothing)
        dpo, sft = (losses * weights).sum() / total, -(log_probs[chosen] * weights).sum() / total
        rewards = self.beta * log_ratios.detach()
        values = ((gaps > 0).float(), self.beta * gaps.detach(), rewards[chosen], rewards[rejected])
        means = (dpo.detach(), sft.detach(), *((value * weights).sum() / total for value in values))
        # The same names on every rank, also where its own samples have no pair.
        frac_unpaired = rollout.scores.new_tensor((len(rollout.rows) - num_paired) / len(rollout))
        metrics = dict(zip(self.metric_names, (frac_unpaired, *means), strict=True))
        return dpo + self.sft_weight * sft + zero_loss(backbone), metrics

    def _pairs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        return preference_pairs(rollout.advantage_rewards, rollout.group_size, self.pairs, self.margin, rollout.weights)

    def _score_reference(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        assert self._reference is not None, "attach comes first"
        with self._reference.active(backbone) as reference:
            return self._score(reference, rollout, sampling, generator)

    def _score(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        """Mean log-likelihood over the codes of each image that may be in a pair, 0 for other images. (B,)

        Random masks differ between the rows of a call. So each call scores one image of every group, and all calls use
        the same random numbers.
        """
        chosen, rejected = self._pairs(rollout)
        calls = torch.stack((chosen, rejected))  # (2, groups)
        if self.pairs == "all":
            first = (chosen // rollout.group_size).unique() * rollout.group_size
            calls = first + torch.arange(rollout.group_size, device=first.device)[:, None]  # (group_size, groups)
        log_probs, state = torch.zeros_like(rollout.scores), generator.get_state()
        for rows in calls:
            batch = scoring_batch(backbone, rollout, torch.zeros_like(log_probs).index_fill(0, rows, 1.0))
            if len(batch):
                rng = torch.Generator(generator.device).set_state(state)
                log_probs = log_probs.scatter(0, batch.rows, self._score_images(backbone, batch, sampling, rng))
        return log_probs

    def _score_images(
        self, backbone: Backbone, batch: ScoringBatch, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        generator = batch.generator(generator)
        if self.likelihood == "random_masks":
            log_probs, weights = backbone.image_log_likelihood(
                batch.prompts, batch.images, sampling, self.num_masks, generator
            )
        else:
            log_probs, mask = backbone.image_log_probs(batch.prompts, batch.images, sampling, None, generator)
            weights = decision_weights(mask, "sample")
        return (log_probs * weights).sum(1)
