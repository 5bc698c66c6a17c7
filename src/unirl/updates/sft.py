"""Supervised fine-tuning on the model's own drawings: the known answer supervises drawing and answering.

Source: UniRL (arXiv 2505.23380). `end_to_end` is the paper's main variant, the other one its alternative.
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import shared_mean
from unirl.errors import UserError, temperature_within, within
from unirl.functional.advantages import group_mean
from unirl.functional.reductions import nothing
from unirl.types import Answers, ImageSampling, Rollout
from unirl.updates.base import UpdateRule, warn_of_guidance


class SFT(UpdateRule):
    """Supervised fine-tuning, through the drawing or beside it.

    End to end, the loss is -log p(right answer | straight-through drawing, question); its gradient reaches drawing
    through the codes. Otherwise accepted drawings are images to learn under their prompts.
    Either way, `answers` says what answering learns.

    Args:
        end_to_end: Which of the two. Measured here, learning through the drawing gains little and costs seeing
            (docs/results.md), so it is not the default.
        image_weight: Weight of what teaches drawing.
        answer_weight: Weight of what teaches answering.
        answers: "all": the right answers about all drawings. End to end that is the paper's loss; it also teaches the
            model to call wrong drawings right. "accepted": the right answers about accepted drawings. "own": what the
            model itself said about each drawing. What each costs in seeing is in docs/method.md.
        temperature: Of the Gumbel-softmax, end to end.
        relaxed_steps: How many of the last sampling steps carry gradient, end to end. None leaves it to the backbone:
            all of those that one pass scores, the last two of a masked model, which needs a pass for each.
        hard_first: Weigh an accepted drawing by the share of its group that was not accepted, otherwise: a prompt that
            always succeeds has nothing to teach.
        views: How many random masks of an accepted drawing a masked model learns at a time, otherwise.
        score_guidance: Guidance under which accepted drawings are learnt, otherwise; None takes the one they were
            drawn with. Where the two differ, what is learnt is not what draws: docs/trials.md has a run like that.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        end_to_end: bool = False,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        answers: Literal["all", "accepted", "own"] = "accepted",
        temperature: float = 1.0,
        relaxed_steps: int | None = None,
        hard_first: bool = True,
        views: int = 1,
        score_guidance: float | None = None,
    ) -> None:
        temperature_within("sft", temperature, greedy=False)
        within(0, 1e6, "sft", image_weight=image_weight, answer_weight=answer_weight)
        within(1, 100_000, "sft", relaxed_steps=1 if relaxed_steps is None else relaxed_steps)
        within(1, 1000, "sft", views=views)
        within(-1, 1000, "sft", score_guidance=0 if score_guidance is None else score_guidance)
        if not image_weight and not answer_weight:
            raise UserError("sft: image_weight and answer_weight are both 0; one of them must be above 0 to train")
        self.end_to_end, self.answers = end_to_end, answers
        self.image_weight, self.answer_weight = image_weight, answer_weight
        self.temperature, self.relaxed_steps = temperature, relaxed_steps
        self.hard_first, self.views, self.score_guidance = hard_first, views, score_guidance
        drawing, answering = image_weight and not end_to_end, answer_weight and answers == "accepted"
        self.learns_accepted = bool(drawing or answering)

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if self.end_to_end and not backbone.can_relax:
            name = type(backbone).__name__
            raise UserError(f"sft end_to_end needs straight-through codes, and {name} has none; set end_to_end: false")
        if self.hard_first and self.image_weight and not self.end_to_end and group_size == 1:
            raise UserError(
                "sft: with hard_first, an accepted drawing counts by the share of its group that was not accepted, and "
                "group_size is 1, so none would count; take 2 or more, or set hard_first: false"
            )
        if self.image_weight and not self.end_to_end:
            warn_of_guidance("sft", self.score_guidance, sampling)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        none = nothing(backbone)
        if self.end_to_end:
            image, answer = self._through(backbone, rollout, sampling, generator)
        else:
            image = self._beside(backbone, rollout, sampling, generator) if self.image_weight else none
            answer = self._answering(backbone, rollout) if self.answer_weight else none
        loss = self.image_weight * image + self.answer_weight * answer + none
        return loss, {"image_loss": image.detach(), "answer_loss": answer.detach()}

    def _through(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One answer loss, split where it enters the codes: what drawing learns from it, and what answering learns.

        With `answers: all` and equal weights, the sum of the two gradients is that of the paper's single loss.
        """
        steps = self.relaxed_steps or backbone.relaxed_steps
        images = backbone.relax(rollout.prompts, rollout.images, sampling, self.temperature, steps, generator)
        assert images.soft is not None
        codes = images.soft.detach().requires_grad_()
        right = _right_answers(backbone, rollout)
        log_probs = backbone.answer_log_probs(dataclasses.replace(images, soft=codes), rollout.questions, right)
        kept = rollout.kept
        whole = -shared_mean(log_probs, right.mask * kept[:, None])
        (slope,) = torch.autograd.grad(whole, codes, retain_graph=True)
        drawing = (images.soft * slope).sum()
        drawing = whole.detach() + drawing - drawing.detach()  # the value of the loss, the gradient of drawing
        if self.answers == "own":
            return drawing, self._answering(backbone, rollout)
        taught = kept if self.answers == "all" else kept * rollout.accepted
        return drawing, -shared_mean(log_probs, right.mask * taught[:, None])

    def _beside(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy of accepted drawings under their prompts: the image loss of pre-training."""
        weights = rollout.accepted.float()
        if self.hard_first:
            weights = weights * (1 - group_mean(weights, rollout.group_size))
        weights = weights * rollout.kept
        rows = weights.nonzero().flatten()
        if not len(rows):
            return shared_mean(weights[rows], weights[rows])  # 0
        prompts = [rollout.examples[i].prompt for i in rows.tolist()]
        if self.score_guidance is not None:
            sampling = dataclasses.replace(sampling, guidance=self.score_guidance)
        log_probs, terms = backbone.picture_log_probs(prompts, rollout.images[rows], sampling, self.views, generator)
        return -shared_mean((log_probs * terms).sum(1), weights[rows])

    def _answering(self, backbone: Backbone, rollout: Rollout) -> Tensor:
        """Negative log-likelihood of the answers that are to be learnt, about the drawings as they are."""
        said = rollout.answers if self.answers == "own" else _right_answers(backbone, rollout)
        rows = rollout.accepted if self.answers == "accepted" else torch.ones_like(rollout.accepted)
        if not rows.any():
            return shared_mean(rollout.kept[rows], rollout.kept[rows])  # 0
        said, images, kept = said[rows], rollout.images[rows], rollout.kept[rows]
        questions = [rollout.questions[i] for i in rows.nonzero().flatten().tolist()]
        return -shared_mean(backbone.answer_log_probs(images, questions, said), said.mask * kept[:, None])


def _right_answers(backbone: Backbone, rollout: Rollout) -> Answers:
    return backbone.tokenize_answers([example.answer for example in rollout.examples])
