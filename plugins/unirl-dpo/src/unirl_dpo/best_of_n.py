"""Best-of-n fine-tuning: the best drawing of each group is an image to learn under its prompt.

Source: Dong et al. 2023 (RAFT, arXiv 2304.06767); Touvron et al. 2023 (Llama 2, arXiv 2307.09288), section 3.2.3.
"""

from typing import Literal

import torch
from torch import Tensor

from unirl.backbones import Backbone
from unirl.errors import UserError, check_minimum
from unirl.functional.advantages import group_mean, zero_variance_groups
from unirl.functional.reductions import masked_mean, zero_loss
from unirl.types import ImageSampling, Rollout
from unirl.updates import UpdateRule
from unirl_dpo.functional import best_samples


class BestOfN(UpdateRule):
    """Best-of-n fine-tuning: learn the best drawing of each group by its image loss; n is `group_size`.

    Args:
        learn: "accepted": the best of those drawings of a group that are accepted; a group without any is skipped.
            "best": the one that scored best, accepted or not; a group that scored alike is skipped.
        weight_by_failure_rate: Weigh it by the share of its group that was not accepted: a prompt that always succeeds has nothing
            to teach.
        num_masks: How many random masks of a drawing a masked model learns at a time.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self, learn: Literal["accepted", "best"] = "accepted", weight_by_failure_rate: bool = False, num_masks: int = 1
    ) -> None:
        check_minimum(1, "best_of_n", num_masks=num_masks)
        self.learn, self.weight_by_failure_rate, self.num_masks = learn, weight_by_failure_rate, num_masks
        self.learns_from_accepted = learn == "accepted"

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(
                f"best_of_n takes the best drawing of a group, and group_size is {group_size}; take 2 or more"
            )

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rows = best_samples(rollout.advantage_rewards, rollout.group_size, self._allowed(rollout))
        learnt = rollout.scores.new_tensor(len(rows) * rollout.group_size / len(rollout.scores))
        image = learnt.new_zeros(())
        if len(rows):
            prompts = [rollout.prompts[i] for i in rows.tolist()]
            log_probs, terms = backbone.image_log_likelihood(
                prompts, rollout.images[rows], sampling, self.num_masks, generator
            )
            image = -masked_mean((log_probs * terms).sum(1), self._weights(rollout)[rows])
        return image + zero_loss(backbone), {"image_loss": image.detach(), "learnt_groups": learnt}

    def _allowed(self, rollout: Rollout) -> Tensor:
        counts = self._weights(rollout) > 0
        if self.learn == "accepted":
            return rollout.accepted & counts
        flat = zero_variance_groups(rollout.advantage_rewards, rollout.group_size, rollout.sample_weights)
        return counts & ~flat.repeat_interleave(rollout.group_size)

    def _weights(self, rollout: Rollout) -> Tensor:
        if not self.weight_by_failure_rate:
            return rollout.sample_weights
        return rollout.sample_weights * (1 - group_mean(rollout.accepted.float(), rollout.group_size))
