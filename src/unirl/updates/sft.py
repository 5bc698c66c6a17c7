"""Supervised fine-tuning on the model's own images: the known answer supervises generation and understanding.

Source: UniRL (arXiv 2505.23380). `end_to_end` is the paper's main variant, the other one its alternative.
"""

import dataclasses
from collections.abc import Collection

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import global_masked_mean
from unirl.errors import UserError, check_range, check_temperature
from unirl.functional.advantages import group_mean
from unirl.functional.reductions import zero_loss
from unirl.types import AnswerLabels, ImageSampling, Rollout
from unirl.updates.answer_labels import (
    AnswerLabeler,
    ImageSource,
    LabeledRule,
    LabelSource,
    PosteriorLabels,
    Term,
    label_loss,
    prompt_answers,
)
from unirl.updates.base import warn_guidance_mismatch
from unirl.updates.batching import scoring_batch
from unirl.updates.kl import answer_kl


class SFT(LabeledRule):
    """Supervised fine-tuning, end to end through the image or by rejection sampling.

    End to end, the loss is -log p(target answer | straight-through image, question), whose gradient reaches generation
    through the image codes. Otherwise accepted images are trained on under their prompts.

    Args:
        end_to_end: Train generation through the answer loss. Measured here, it gains little and costs understanding
            (docs/results.md), so it is off by default.
        image_weight: Weight of the loss that trains generation.
        answer_weight: Weight of the loss that trains answering.
        answer_labels: Which answers are trained. "prompt": the prompt's answers about all images, the paper's loss end
            to end; it also teaches to call wrong images correct. "accepted": the same about accepted images. "self":
            the model's own answers about all images. "posterior": the most probable answer, see `PosteriorLabels`.
            docs/method.md has the cost of each.
        temperature: Temperature of the Gumbel-softmax, end to end.
        straight_through_steps: Last sampling steps that carry gradient, end to end. None leaves it to the backbone: all
            where one pass scores them, 2 for a masked model, which needs a pass for each.
        weight_by_failure_rate: Weigh an accepted image by the share of its group that was not accepted, so that prompts
            that always succeed are not trained on. Not used end to end.
        num_masks: Random masks of each accepted image, for a masked model. Not used end to end.
        loss_guidance: Guidance under which accepted images are scored. None takes the one that generated them
            (docs/trials.md has a run where the two differ). Not used end to end.
        posterior: Settings of `answer_labels: posterior`.
        answer_images: Who generates the images that answers are trained on: "policy", or "reference", the untrained
            model, so that training cannot fit them to its own mistakes.
        answer_images_per_prompt: Images of each prompt of a step that the reference generates.
        answer_beta: Weight of a KL penalty on the divergence of the model's answers from those of the untrained model,
            as `kl.answer_beta` of `grpo`, also where `answer_weight` is 0. 0 needs no reference for it.

    Raises:
        UserError: a number is out of range.
    """

    loss_unit = "sample"

    def __init__(
        self,
        end_to_end: bool = False,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        answer_labels: LabelSource = "accepted",
        temperature: float = 1.0,
        straight_through_steps: int | None = None,
        weight_by_failure_rate: bool = True,
        num_masks: int = 1,
        loss_guidance: float | None = None,
        posterior: PosteriorLabels = PosteriorLabels(),
        answer_images: ImageSource = "policy",
        answer_images_per_prompt: int = 1,
        answer_beta: float = 0.0,
    ) -> None:
        check_temperature("sft", temperature, greedy=False)
        check_range(0, 1e6, "sft", image_weight=image_weight, answer_weight=answer_weight, answer_beta=answer_beta)
        steps = 1 if straight_through_steps is None else straight_through_steps
        check_range(1, 100_000, "sft", straight_through_steps=steps)
        check_range(1, 1000, "sft", num_masks=num_masks)
        check_range(-1, 1000, "sft", loss_guidance=loss_guidance or 0)
        if not image_weight and not answer_weight:
            raise UserError("sft: image_weight and answer_weight are both 0; one of them must be above 0 to train")
        self.end_to_end = end_to_end
        self.labeler = AnswerLabeler("sft", answer_labels, posterior, answer_images, answer_images_per_prompt)
        self.image_weight, self.answer_weight, self.answer_beta = image_weight, answer_weight, answer_beta
        self.temperature, self.straight_through_steps = temperature, straight_through_steps
        self.weight_by_failure_rate, self.num_masks, self.loss_guidance = (
            weight_by_failure_rate,
            num_masks,
            loss_guidance,
        )
        rejection, gated = image_weight and not end_to_end, answer_weight and answer_labels == "accepted"
        self.learns_from_accepted = bool(rejection or gated)

    @override
    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if self.end_to_end and not backbone.supports_straight_through:
            name = type(backbone).__name__
            raise UserError(f"sft end_to_end needs straight-through codes, and {name} has none; set end_to_end: false")
        if self.weight_by_failure_rate and self.image_weight and not self.end_to_end and group_size == 1:
            raise UserError(
                "sft: weight_by_failure_rate weighs an accepted image by the share of its group that was not accepted, "
                "and group_size is 1, so every weight would be 0; take 2 or more, or set weight_by_failure_rate: false"
            )
        if self.image_weight and not self.end_to_end:
            warn_guidance_mismatch("sft", self.loss_guidance, sampling)

    @property
    @override
    def needs_reference(self) -> bool:
        return self.answer_beta > 0 or super().needs_reference

    @property
    @override
    def metric_names(self) -> Collection[str]:
        divergence = ("kl/answer",) if self.answer_beta else ()
        return ("loss/image", "loss/answer", *divergence, *self.labeler.metric_names)

    @override
    def terms(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[list[Term], dict[str, Tensor]]:
        zero = zero_loss(backbone)
        samples = rollout.answer_samples
        labels = self.labeler.labels(backbone, samples, self._reference) if self.answer_weight else None
        if self.end_to_end:
            image, answer = self._end_to_end_loss(backbone, rollout, sampling, generator, labels)
        else:
            image = self._rejection_loss(backbone, rollout, sampling, generator) if self.image_weight else zero
            answer = zero if labels is None else label_loss(backbone, samples, labels)
        terms = [("image", self.image_weight * image), ("answer", self.answer_weight * answer)]
        metrics = {"loss/image": image.detach(), "loss/answer": answer.detach()}
        if self.answer_beta:
            assert self._reference is not None, "attach comes first"
            divergence = answer_kl(backbone, rollout, self._reference)
            terms.append(("answer", self.answer_beta * divergence))
            metrics["kl/answer"] = divergence.detach()
        return terms, metrics | self.labeler.metrics(samples, labels)

    def _end_to_end_loss(
        self,
        backbone: Backbone,
        rollout: Rollout,
        sampling: ImageSampling,
        generator: torch.Generator,
        labels: AnswerLabels | None,
    ) -> tuple[Tensor, Tensor]:
        """One answer loss, split at the image codes into what trains generation and what trains answering.

        With `answer_labels: prompt` and equal weights, the two gradients add up to that of the paper's single loss.
        """
        steps = self.straight_through_steps or backbone.straight_through_steps
        batch = scoring_batch(backbone, rollout)
        generator = batch.generator(generator)
        images = backbone.straight_through(batch.prompts, batch.images, sampling, self.temperature, steps, generator)
        assert images.soft is not None
        codes = images.soft.detach().requires_grad_()
        target = prompt_answers(backbone, rollout)
        answers = target[batch.answer_rows]
        log_probs = backbone.answer_log_probs(dataclasses.replace(images, soft=codes), batch.questions, answers)

        def mean(weights: Tensor) -> Tensor:
            total = (target.mask * weights[:, None]).sum()
            return -global_masked_mean(log_probs, answers.mask * weights[batch.answer_rows, None], total)

        weights = rollout.per_answer(rollout.sample_weights)
        value = mean(weights)
        (gradient,) = torch.autograd.grad(value, codes, retain_graph=True)
        image = (images.soft * gradient).sum()
        image = value.detach() + image - image.detach()  # value of the loss, gradient of generation
        if labels is None:
            return image, zero_loss(backbone)
        samples = rollout.answer_samples
        if samples is not rollout or self.labeler.source in ("self", "posterior"):
            return image, label_loss(backbone, samples, labels)
        return image, mean(weights if labels.weights is None else weights * labels.weights)

    def _rejection_loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> Tensor:
        """Cross-entropy of accepted images under their prompts: the image loss of pre-training."""
        weights = rollout.accepted.float()
        if self.weight_by_failure_rate:
            weights = weights * (1 - group_mean(weights, rollout.group_size))
        weights = weights * rollout.sample_weights
        batch = scoring_batch(backbone, rollout, weights)
        total, weights = weights[batch.all_rows].sum(), weights[batch.rows]
        if not len(batch):
            return global_masked_mean(weights, weights, total)  # 0; collective
        if self.loss_guidance is not None:
            sampling = dataclasses.replace(sampling, guidance=self.loss_guidance)
        log_probs, terms = backbone.image_log_likelihood(
            batch.prompts, batch.images, sampling, self.num_masks, batch.generator(generator)
        )
        return -global_masked_mean((log_probs * terms).sum(1), weights, total)
