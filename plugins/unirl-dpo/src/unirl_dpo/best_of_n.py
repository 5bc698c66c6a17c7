"""Best-of-n fine-tuning: supervised fine-tuning on the best image of each group.

Source: Dong et al. 2023 (RAFT, arXiv 2304.06767); Touvron et al. 2023 (Llama 2, arXiv 2307.09288), section 3.2.3.
"""

from typing import Literal

import torch
from torch import Tensor

from unirl import ImageSampling, Rollout, UserError
from unirl.backbones import Backbone
from unirl.functional import group_mean, zero_loss, zero_variance_groups
from unirl.updates import UpdateRule, scoring_batch
from unirl_dpo.functional import best_samples


class BestOfN(UpdateRule):
    """Best-of-n fine-tuning: the image loss of the best image of each group; n is `group_size`.

    Args:
        select: "accepted": the best of the accepted images of a group; groups without any are skipped. "best": the
            image with the highest score, accepted or not; groups of equal scores are skipped.
        weight_by_failure_rate: Weigh it by the share of its group that was not accepted, so that prompts that always
            succeed are not trained on.
        num_masks: Random masks of each image, for a masked model.

    Raises:
        UserError: a number is out of range.
    """

    loss_unit = "sample"

    def __init__(
        self, select: Literal["accepted", "best"] = "accepted", weight_by_failure_rate: bool = False, num_masks: int = 1
    ) -> None:
        if num_masks < 1:
            raise UserError(f"best_of_n: num_masks {num_masks}; it must be 1 or more")
        self.select, self.weight_by_failure_rate, self.num_masks = select, weight_by_failure_rate, num_masks
        self.learns_from_accepted = select == "accepted"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss/image", "frac_trained_groups")

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(
                f"best_of_n takes the best image of a group, and group_size is {group_size}; take 2 or more"
            )

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        best = best_samples(rollout.advantage_rewards, rollout.group_size, self._candidates(rollout))
        weights = torch.zeros_like(rollout.scores).scatter(0, best, self._weights(rollout)[best])
        batch = scoring_batch(backbone, rollout, weights)
        frac_trained = (weights[batch.rows] > 0).sum() * rollout.group_size / len(rollout)
        image = weights.new_zeros(())
        if len(batch):
            log_probs, terms = backbone.image_log_likelihood(
                batch.prompts, batch.images, sampling, self.num_masks, batch.generator(generator)
            )
            total = weights[batch.all_rows].sum().clamp(min=1e-9)
            image = -((log_probs * terms).sum(1) * weights[batch.rows]).sum() / total
        metrics = dict(zip(self.metric_names, (image.detach(), frac_trained), strict=True))
        return image + zero_loss(backbone), metrics

    def _candidates(self, rollout: Rollout) -> Tensor:
        """Which samples may be trained on. (B,)"""
        has_weight = self._weights(rollout) > 0
        if self.select == "accepted":
            return rollout.accepted & has_weight
        zero_variance = zero_variance_groups(rollout.advantage_rewards, rollout.group_size, rollout.sample_weights)
        return has_weight & ~zero_variance.repeat_interleave(rollout.group_size)

    def _weights(self, rollout: Rollout) -> Tensor:
        if not self.weight_by_failure_rate:
            return rollout.sample_weights
        return rollout.sample_weights * (1 - group_mean(rollout.accepted.float(), rollout.group_size))
