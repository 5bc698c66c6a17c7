"""Direct preference optimisation: of two drawings of one prompt, the better one becomes likelier than the worse one.

Source: Rafailov et al. 2023 (DPO, arXiv 2305.18290); for drawings, and why random masks may stand for the likelihood,
Wallace et al. 2023 (Diffusion-DPO, arXiv 2311.12908).
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from unirl.backbones import Backbone
from unirl.errors import UserError, check_minimum
from unirl.functional.policy_gradient import decision_weights
from unirl.functional.reductions import masked_mean, zero_loss
from unirl.types import ImageSampling, Rollout
from unirl.updates import Reference, UpdateRule
from unirl_dpo.functional import Pairing, Variant, pair_weights, preference_loss, preference_pairs

LOGS = ("dpo_loss", "winner_loss", "pair_accuracy", "pair_margin", "winner_gain", "loser_gain")


class DPO(UpdateRule):
    """Direct preference optimisation on pairs that the model drew and scored itself.

    Winner, loser and reference are scored under the same random masks where the model is a masked one, so that what
    they share cancels out. Answers are not trained: the README says why.

    Args:
        beta: How closely drawing is held to the untrained model: larger is closer.
        variant: "sigmoid": DPO. "ipo": IPO, whose pull ends where the winner is ahead by 1 / (2 beta) nats.
        label_smoothing: The share of pairs that the rewards are thought to have the wrong way round (cDPO), below 0.5;
            of "sigmoid" only.
        pairs: "extremes": the best against the worst drawing of each group. "all": every pair of it that differs; all
            pairs of a group together weigh as much as one.
        margin: Least difference of the two scores; drawings that scored alike are never a pair.
        reduction: "sum": the log-likelihood of the whole drawing, as published. "mean": a code's on average; with N
            codes it is "sum" with beta / N.
        likelihood: What of a drawing is scored. "random_masks": a masked model's codes under random masks; other models score
            every code. "decisions": codes in the context in which the sampler fixed them.
        num_masks: How many random masks of a drawing are scored at a time, of masks.
        sft_weight: Weight of the winner's own image loss, the mean over its codes; it keeps the winner from becoming
            less likely together with the loser.

    Raises:
        UserError: a number is out of range.
    """

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
            raise UserError(f"dpo: label_smoothing {label_smoothing}; it must be from 0 to below 0.5")
        if label_smoothing and variant == "ipo":
            raise UserError(
                "dpo: label_smoothing belongs to variant sigmoid, and variant is ipo; leave one of them out"
            )
        check_minimum(0, "dpo", margin=margin, sft_weight=sft_weight)
        check_minimum(1, "dpo", num_masks=num_masks)
        self.beta, self.variant, self.label_smoothing = beta, variant, label_smoothing
        self.pairs, self.margin, self.sft_weight = pairs, margin, sft_weight
        self.reduction, self.likelihood, self.num_masks = reduction, likelihood, num_masks
        self._reference: Reference | None = None

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"dpo pairs the drawings of a group, and group_size is {group_size}; take 2 or more")

    def attach(self, backbone: Backbone) -> None:
        self._reference = Reference(backbone)

    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        scored = [{"reference": self._anchor(backbone, rollout, sampling, generator)} for generator in generators]
        return dataclasses.replace(rollout, old_log_probs=scored)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        winners, losers = self._pairs(rollout)
        paired = len((winners // rollout.group_size).unique()) * rollout.group_size / len(rollout.scores)
        # The same names on every process, also where its own samples make no pair.
        logs = {"unpaired_groups": rollout.scores.new_tensor(1 - paired)} | dict.fromkeys(
            LOGS, rollout.scores.new_zeros(())
        )
        if not len(winners):
            return zero_loss(backbone), logs
        log_probs = self._score(backbone, rollout, sampling, generator)
        kept = rollout.old_log_probs[rollout.iteration] if rollout.old_log_probs else {}
        # A rollout that comes from a checkpoint may be one that another rule prepared.
        anchor = kept["reference"] if "reference" in kept else self._anchor(backbone, rollout, sampling, generator)
        gains = log_probs - anchor
        if self.reduction == "sum":
            gains = gains * rollout.images.codes.shape[1]
        gaps = gains[winners] - gains[losers]
        weights = pair_weights(winners, losers, rollout.group_size, rollout.sample_weights)
        terms = preference_loss(gaps, self.beta, self.variant, self.label_smoothing)
        preferred, learnt = masked_mean(terms, weights), -masked_mean(log_probs[winners], weights)
        found = (preferred, learnt, (gaps > 0).float(), self.beta * gaps, gains[winners], gains[losers])
        logs |= {name: masked_mean(v.detach().expand_as(weights), weights) for name, v in zip(LOGS, found, strict=True)}
        return preferred + self.sft_weight * learnt + zero_loss(backbone), logs

    def _pairs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        return preference_pairs(rollout.advantage_rewards, rollout.group_size, self.pairs, self.margin, rollout.weights)

    def _anchor(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        assert self._reference is not None, "attach comes first"
        with self._reference.active(backbone) as reference:
            return self._score(reference, rollout, sampling, generator)

    def _score(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        """Mean log-likelihood of a code of each drawing that may be in a pair, 0 elsewhere. (B,)

        A model draws masks for the rows of a call. So each call has one drawing of every group, and the same generator.
        """
        winners, losers = self._pairs(rollout)
        rounds = torch.stack((winners, losers))  # (2, groups)
        if self.pairs == "all":
            first = (winners // rollout.group_size).unique() * rollout.group_size
            rounds = first + torch.arange(rollout.group_size, device=first.device)[:, None]  # (G, groups)
        log_probs = torch.zeros_like(rollout.scores)
        if not rounds.numel():
            return log_probs
        state = generator.get_state()
        found = [self._drawings(backbone, rollout, rows, sampling, _again(generator, state)) for rows in rounds]
        return log_probs.scatter(0, rounds.flatten(), torch.cat(found))

    def _drawings(
        self, backbone: Backbone, rollout: Rollout, rows: Tensor, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        prompts, images = [rollout.prompts[i] for i in rows.tolist()], rollout.images[rows]
        if self.likelihood == "random_masks":
            log_probs, weights = backbone.image_log_likelihood(prompts, images, sampling, self.num_masks, generator)
        else:
            log_probs, mask = backbone.image_log_probs(prompts, images, sampling, None, generator)
            weights = decision_weights(mask, "sample")
        return (log_probs * weights).sum(1)


def _again(generator: torch.Generator, state: Tensor) -> torch.Generator:
    return torch.Generator(generator.device).set_state(state)
