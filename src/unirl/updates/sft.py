"""Supervised fine-tuning on the model's own drawings: the known answer supervises drawing and answering.

Source: UniRL (arXiv 2505.23380). `end_to_end` is the paper's main variant, the other one its alternative.
"""

import dataclasses

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.functional.losses import masked_mean
from unirl.types import Images, ImageSampling, Rollout
from unirl.updates.base import UpdateRule


class SFT(UpdateRule):
    """Supervised fine-tuning, through the drawing or beside it.

    End to end, the loss is -log p(right answer | straight-through drawing, question); its gradient reaches drawing
    through the codes. Otherwise drawings whose score is at least `accept` are images to learn: the loss is theirs under
    their prompts, plus that of their answers.

    Args:
        end_to_end: Which of the two.
        image_weight: Weight of what teaches drawing.
        answer_weight: Weight of what teaches answering.
        accept: Least score of an accepted sample.
        answer_all: Teach the right answer on drawings that are not accepted, too. End to end that is the paper's loss;
            it also teaches the model to call wrong drawings right.
        temperature: Of the Gumbel-softmax, end to end.
        relaxed_steps: How many of the last sampling steps carry gradient, end to end.
        scored_steps: How many sampling steps of an accepted drawing are learnt at a time, otherwise; None takes all.
    """

    def __init__(
        self,
        end_to_end: bool = True,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        accept: float = 1.0,
        answer_all: bool = False,
        temperature: float = 1.0,
        relaxed_steps: int = 2,
        scored_steps: int | None = None,
    ) -> None:
        if temperature <= 0:
            raise UserError(f"sft: temperature {temperature}; it must be above 0")
        if relaxed_steps < 1:
            raise UserError(f"sft: relaxed_steps {relaxed_steps}; at least one step must carry gradient")
        self.end_to_end, self.accept, self.answer_all = end_to_end, accept, answer_all
        self.image_weight, self.answer_weight = image_weight, answer_weight
        self.temperature, self.relaxed_steps, self.scored_steps = temperature, relaxed_steps, scored_steps

    def check(self, backbone: Backbone) -> None:
        if self.end_to_end and not backbone.can_relax:
            name = type(backbone).__name__
            raise UserError(f"sft end_to_end needs straight-through codes, and {name} has none; set end_to_end: false")

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        accepted = rollout.scores >= self.accept - 1e-6
        taught = torch.ones_like(accepted) if self.answer_all else accepted
        if self.end_to_end:
            image, answer = self._through(backbone, rollout, sampling, taught, generator)
        else:
            image, answer = self._beside(backbone, rollout, sampling, accepted, taught, generator)
        logs = {"image_loss": image.detach(), "answer_loss": answer.detach(), "accepted": accepted.float().mean()}
        return self.image_weight * image + self.answer_weight * answer, logs

    def _through(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, taught: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One answer loss, split where it enters the codes: what drawing and what answering learn from it.

        With `answer_all` and equal weights the sum of the gradients is that of the paper's single loss.
        """
        images = backbone.relax(
            rollout.prompts, rollout.images, sampling, self.temperature, self.relaxed_steps, generator
        )
        assert images.soft is not None
        codes = images.soft.detach().requires_grad_()
        log_probs, mask = self._answer(backbone, rollout, dataclasses.replace(images, soft=codes))
        whole = -masked_mean(log_probs, mask)
        (slope,) = torch.autograd.grad(whole, codes, retain_graph=True)
        drawing = (images.soft * slope).sum()
        return whole.detach() + drawing - drawing.detach(), -masked_mean(log_probs, mask & taught[:, None])

    def _beside(
        self,
        backbone: Backbone,
        rollout: Rollout,
        sampling: ImageSampling,
        accepted: Tensor,
        taught: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Losses of accepted drawings under their prompts, and of the right answers about them."""
        image = answer = sum(p.sum() * 0 for p in backbone.parameters() if p.requires_grad)  # keeps every rank in step
        if accepted.any() and self.image_weight:
            part = _pick(rollout, accepted)
            log_probs, scored = backbone.image_log_probs(
                part.prompts, part.images, dataclasses.replace(sampling, guidance=0.0), self.scored_steps, generator
            )
            image = image - masked_mean(log_probs, scored)
        if taught.any() and self.answer_weight:
            part = _pick(rollout, taught)
            answer = answer - masked_mean(*self._answer(backbone, part, part.images))
        return image, answer

    def _answer(self, backbone: Backbone, rollout: Rollout, images: Images) -> tuple[Tensor, Tensor]:
        right = backbone.tokenize_answers([example.answer for example in rollout.examples])
        return backbone.answer_log_probs(images, rollout.questions, right), right.mask


def _pick(rollout: Rollout, rows: Tensor) -> Rollout:
    """The given rows of a rollout, whose groups are then no longer whole."""
    keep = rows.nonzero().flatten().tolist()
    return dataclasses.replace(
        rollout,
        examples=[rollout.examples[i] for i in keep],
        images=rollout.images[rows],
        answers=rollout.answers[rows],
        scores=rollout.scores[rows],
        score_parts={name: part[rows] for name, part in rollout.score_parts.items()},
    )
