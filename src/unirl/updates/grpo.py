"""Group relative policy optimization over image generation and answering.

Source: Shao et al. 2024 (GRPO, arXiv 2402.03300) as UniRL (arXiv 2505.23380) uses it.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import all_reduce_mean
from unirl.errors import UserError, check_range
from unirl.functional.advantages import group_advantages
from unirl.functional.policy_gradient import Reduction, clip_ratio, clipped_objective, decision_weights, k3
from unirl.types import ImageSampling, Rollout
from unirl.updates.answer_labels import (
    AnswerLabeler,
    ImageSource,
    LabeledRule,
    LabelSource,
    PosteriorLabels,
    Term,
    label_loss,
)
from unirl.updates.base import warn_guidance_mismatch
from unirl.updates.batching import ScoringBatch, scoring_batch

Scored = tuple[Tensor, Tensor]
"""Log-probabilities (R, A) of decisions, and their mask or weights (R, A)."""


@dataclass(frozen=True)
class PolicyLoss:
    """The policy-gradient part of `GRPO`.

    Args:
        scale_rewards: Divide advantages by the standard deviation of their group; off as in Dr. GRPO
            (arXiv 2503.20783).
        std_epsilon: Added to that standard deviation.
        negative_scale: Factor on negative advantages. A sample that is wrong for its prompt may be correct for a
            held-out one; 0 learns from better samples only (docs/trials.md).
        reduction: "sample" averages the decisions of each sample first, "token" averages all decisions of the batch
            (DAPO, arXiv 2503.14476). All images of a model have equally many decisions, so it matters for answers.
        epsilon: The ratio of new to old probability is clipped below 1 - epsilon. It matters with several iterations.
        epsilon_high: The ratio is clipped above 1 + epsilon_high. Defaults to `epsilon`.
    """

    scale_rewards: bool = True
    std_epsilon: float = 1e-4
    negative_scale: float = 1.0
    reduction: Reduction = "sample"
    epsilon: float = 0.2
    epsilon_high: float | None = None

    @property
    def clip(self) -> tuple[float, float]:
        """Lower and upper distance from 1."""
        return self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high


@dataclass(frozen=True)
class KLPenalty:
    """The KL part of `GRPO`: a penalty on the divergence from the untrained model.

    Where both weights are 0, no reference model is stored.

    Args:
        beta: Weight for images; 0.2 in the paper's run.
        answer_beta: Weight for answers, also where `answer_weight` is 0. Defaults to `beta`.
    """

    beta: float = 0.0
    answer_beta: float | None = None


@dataclass(frozen=True)
class ImageScoring:
    """Which log-probabilities of an image `GRPO` computes.

    Args:
        likelihood: "decisions" scores each code in the context in which the sampler fixed it. "random_masks" scores the
            codes of a masked model under random masks; the expected gradient is the same for a sampler in random order.
        scored_steps: Sampling steps that are scored, of "decisions". None scores all.
        num_masks: Random masks of each image, of "random_masks".
        loss_guidance: Guidance under which images are scored. None takes the one that generated them.
    """

    likelihood: Literal["decisions", "random_masks"] = "decisions"
    scored_steps: int | None = None
    num_masks: int = 1
    loss_guidance: float | None = None


@dataclass(frozen=True)
class _Task:
    """One of the two tasks in a step.

    Args:
        name: "image" or "answer".
        beta: Weight of its KL penalty.
        batch: The R samples that are scored now.
        advantages: Weighted advantages of what is scored: (R,), or (R x k,) for the answers about R images.
    """

    name: str
    beta: float
    batch: ScoringBatch
    advantages: Tensor


class GRPO(LabeledRule):
    """Group relative policy optimization of image generation and answering, or of one of them.

    All answers about an image have its advantage, and together the weight of one.

    With one iteration for each rollout it is on-policy: the ratio is exp(lp - stopgrad(lp)). With more, the old
    log-probabilities are computed once, before the first iteration.

    Args:
        image_weight: Weight of the image loss.
        answer_weight: Weight of the answer loss.
        answer_labels: Which answers are trained. By their advantage: "accepted", the model's own about accepted images,
            or "self", all of its own, the paper's choice, which also rewards calling wrong images correct
            (docs/method.md). By cross-entropy: "prompt", the prompt's answers about all images, or "posterior", the
            most probable answer, see `PosteriorLabels`.
        loss: Advantages and clipping.
        kl: Penalty on the divergence from the untrained model.
        scoring: Which log-probabilities of images are computed.
        posterior: Settings of `answer_labels: posterior`.
        answer_images: Who generates the images that answers are trained on: "policy", or "reference", the untrained
            model, so that training cannot fit them to its own mistakes. Needs `answer_labels` "prompt" or "posterior".
        answer_images_per_prompt: Images of each prompt of a step that the reference generates.

    Raises:
        UserError: a number is out of range.
    """

    loss_unit = "sample"

    def __init__(
        self,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        answer_labels: LabelSource = "accepted",
        loss: PolicyLoss = PolicyLoss(),
        kl: KLPenalty = KLPenalty(),
        scoring: ImageScoring = ImageScoring(),
        posterior: PosteriorLabels = PosteriorLabels(),
        answer_images: ImageSource = "policy",
        answer_images_per_prompt: int = 1,
    ) -> None:
        answer_beta = kl.beta if kl.answer_beta is None else kl.answer_beta
        low, high = loss.clip
        check_range(0, 1e6, "grpo", image_weight=image_weight, answer_weight=answer_weight)
        check_range(0, 1e6, "grpo.loss", negative_scale=loss.negative_scale, std_epsilon=loss.std_epsilon)
        check_range(0, 1e6, "grpo.loss", epsilon=low, epsilon_high=high)
        check_range(0, 1e6, "grpo.kl", beta=kl.beta, answer_beta=answer_beta)
        check_range(1, 1000, "grpo.scoring", num_masks=scoring.num_masks)
        check_range(1, 1000, "grpo.scoring", scored_steps=1 if scoring.scored_steps is None else scoring.scored_steps)
        check_range(-1, 1000, "grpo.scoring", loss_guidance=scoring.loss_guidance or 0)
        if not image_weight and not answer_weight:
            raise UserError("grpo: image_weight and answer_weight are both 0; one of them must be above 0 to train")
        self.image_weight, self.answer_weight = image_weight, answer_weight
        self.betas = {"image": kl.beta, "answer": answer_beta}
        self.policy_loss, self.scoring = loss, scoring
        self.labeler = AnswerLabeler("grpo", answer_labels, posterior, answer_images, answer_images_per_prompt)
        if answer_images == "reference" and answer_labels in ("self", "accepted"):
            raise UserError(
                f"grpo: answer_images is reference and answer_labels is {answer_labels}: the model's own answers are "
                "trained by the advantage of its own images; set answer_labels to prompt or posterior"
            )
        self.learns_from_accepted = bool(answer_weight and answer_labels == "accepted")

    @override
    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"grpo compares the samples of a group, and group_size is {group_size}; take 2 or more")
        scored_steps = self.scoring.scored_steps
        if (scored_steps or 0) > sampling.steps:
            raise UserError(
                f"grpo.scoring: scored_steps {scored_steps}, but image_sampling.steps is {sampling.steps}; "
                f"take at most {sampling.steps}, or null for all"
            )
        warn_guidance_mismatch("grpo", self.scoring.loss_guidance, sampling)

    @property
    @override
    def needs_reference(self) -> bool:
        return any(self.betas.values()) or super().needs_reference

    @property
    @override
    def metric_names(self) -> Collection[str]:
        own = self.labeler.source in ("self", "accepted")
        return (*self._own_metric_names, *(() if own else ("loss/answer",)), *self.labeler.metric_names)

    @override
    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        rollout = super().prepare(backbone, rollout, sampling, generators)
        if len(generators) == 1:
            return rollout  # on-policy: the current policy generated it
        old = [self._old_log_probs(backbone, rollout, sampling, generator) for generator in generators]
        return dataclasses.replace(rollout, old_log_probs=old)

    def _old_log_probs(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for part in rollout.micro_batches():
            tasks = self._tasks(backbone, part)
            scored = self._score(backbone, tasks, sampling, generator)
            for task in tasks:
                if task.name in scored and not task.batch.is_dummy:
                    parts.setdefault(task.name, []).append(scored[task.name][0])
        return {name: torch.cat(log_probs) for name, log_probs in parts.items()}

    @override
    def terms(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[list[Term], dict[str, Tensor]]:
        reference_generator = torch.Generator(generator.device).set_state(generator.get_state())
        tasks = self._tasks(backbone, rollout)
        policy = self._score(backbone, tasks, sampling, generator)
        reference = self._score_reference(backbone, tasks, sampling, reference_generator)
        mean_length = all_reduce_mean((rollout.answers.mask.sum(1) * rollout.answer_weights).sum() / len(rollout))
        terms: list[Term] = []
        metrics = self._zero_metrics(rollout)
        for task in tasks:
            if task.name not in policy:
                continue
            log_probs, mask = policy[task.name]
            weights = self._decision_weights(task, mask, mean_length)
            log_ratio = log_probs - self._old(task, log_probs.detach())
            term = -clipped_objective(log_ratio, task.advantages, *self.policy_loss.clip)
            metrics[f"clip_ratio/{task.name}"] = self._clip_ratio(task, log_ratio.detach(), mask, mean_length)
            if task.beta:
                kl = k3(log_probs, reference[task.name][0])
                metrics[f"kl/{task.name}"] = (kl.detach() * weights).sum() / len(rollout)
                term = term + task.beta * kl
            terms.append((task.name, (term * weights).sum() / len(rollout)))
        return self._add_label_loss(backbone, rollout, terms, metrics)

    def _add_label_loss(
        self, backbone: Backbone, rollout: Rollout, terms: list[Term], metrics: dict[str, Tensor]
    ) -> tuple[list[Term], dict[str, Tensor]]:
        """Add the cross-entropy of labels that are not the model's own answers."""
        if self.labeler.source in ("self", "accepted"):
            return terms, metrics
        samples, labels, answer = rollout.answer_samples, None, rollout.scores.new_zeros(())
        if self.answer_weight:
            labels = self.labeler.labels(backbone, samples, self._reference)
            answer = label_loss(backbone, samples, labels)
            terms = [*terms, ("answer", self.answer_weight * answer)]
        return terms, metrics | {"loss/answer": answer.detach()} | self.labeler.metrics(samples, labels)

    def _tasks(self, backbone: Backbone, rollout: Rollout) -> list[_Task]:
        """Advantages and scored samples of both tasks: all with a KL penalty, otherwise those with an advantage."""
        config = self.policy_loss
        advantages = group_advantages(
            rollout.advantage_rewards, rollout.group_size, config.scale_rewards, config.std_epsilon, rollout.weights
        )
        advantages = torch.where(advantages < 0, config.negative_scale * advantages, advantages)
        if rollout.weights is not None:
            advantages = advantages * rollout.weights
        answer_advantages, tasks = advantages * self._answer_mask(rollout), []
        terms = ("image", self.image_weight, advantages), ("answer", self.answer_weight, answer_advantages)
        for name, weight, values in terms:
            weighted, beta = weight * values, self.betas[name]
            batch = scoring_batch(backbone, rollout, None if beta else weighted)
            scored = weighted[batch.rows]
            scored = scored.repeat_interleave(rollout.num_questions) if name == "answer" else scored
            tasks.append(_Task(name, beta, batch, scored))
        return tasks

    def _answer_mask(self, rollout: Rollout) -> Tensor:
        """Mask (B,) of the samples whose own answer is trained by its advantage."""
        if self.labeler.source == "accepted":
            return rollout.accepted.float()
        return torch.full_like(rollout.scores, float(self.labeler.source == "self"))

    @property
    def _own_metric_names(self) -> list[str]:
        penalties = [f"kl/{name}" for name, beta in self.betas.items() if beta]
        return [f"clip_ratio/{name}" for name in self.betas] + penalties

    def _zero_metrics(self, rollout: Rollout) -> dict[str, Tensor]:
        """The same names on every rank, also where its own samples have nothing to learn."""
        return dict.fromkeys(self._own_metric_names, rollout.scores.new_zeros(()))

    def _score(
        self, backbone: Backbone, tasks: Sequence[_Task], sampling: ImageSampling, generator: torch.Generator
    ) -> dict[str, Scored]:
        """Log-probabilities of both tasks' samples under a model, where there are any."""
        scored: dict[str, Scored] = {}
        for task in tasks:
            if len(task.batch) and task.name == "image":
                scored["image"] = self._score_images(backbone, task.batch, sampling, generator)
            elif len(task.batch):
                answers = task.batch.answers
                log_probs = backbone.answer_log_probs(task.batch.images, task.batch.questions, answers)
                scored["answer"] = log_probs, answers.mask
        return scored

    def _score_images(
        self, backbone: Backbone, batch: ScoringBatch, sampling: ImageSampling, generator: torch.Generator
    ) -> Scored:
        prompts, images, generator = batch.prompts, batch.images, batch.generator(generator)
        if self.scoring.loss_guidance is not None:
            sampling = dataclasses.replace(sampling, guidance=self.scoring.loss_guidance)
        if self.scoring.likelihood == "random_masks":
            return backbone.image_log_likelihood(prompts, images, sampling, self.scoring.num_masks, generator)
        return backbone.image_log_probs(prompts, images, sampling, self.scoring.scored_steps, generator)

    def _score_reference(
        self, backbone: Backbone, tasks: Sequence[_Task], sampling: ImageSampling, generator: torch.Generator
    ) -> Mapping[str, Scored]:
        if self._reference is None or not any(self.betas.values()):
            return {}
        with self._reference.active(backbone) as reference:
            return self._score(reference, [task for task in tasks if task.beta], sampling, generator)

    def _old(self, task: _Task, log_probs: Tensor) -> Tensor:
        """Log-probabilities of a task's decisions before the first iteration; the current ones where it is the only."""
        rollout = task.batch.rollout
        old = rollout.old_log_probs[rollout.iteration] if rollout.old_log_probs else {}
        if task.name not in old or task.batch.is_dummy:
            return log_probs
        return old[task.name][task.batch.answer_positions if task.name == "answer" else task.batch.positions]

    def _clip_ratio(self, task: _Task, log_ratio: Tensor, mask: Tensor, mean_length: Tensor) -> Tensor:
        """The share of clipped decisions among those of all micro-batches."""
        if task.name == "image":  # all have equally many decisions
            weights, total = decision_weights(mask > 0, "sample"), log_ratio.new_tensor(len(task.batch.all_rows))
        else:
            rows = task.batch.all_answer_rows
            weights = self._decision_weights(task, mask, mean_length)
            total = self._answer_decision_weights(
                task.batch.rollout, rows, task.batch.rollout.answers.mask[rows], mean_length
            ).sum()
        return clip_ratio(log_ratio, weights, *self.policy_loss.clip, total)

    def _decision_weights(self, task: _Task, mask: Tensor, mean_length: Tensor) -> Tensor:
        """Weights of the decisions; random masks come with theirs."""
        if task.name == "answer":
            return self._answer_decision_weights(task.batch.rollout, task.batch.answer_rows, mask, mean_length)
        return mask if self.scoring.likelihood == "random_masks" else decision_weights(mask, self.policy_loss.reduction)

    def _answer_decision_weights(self, rollout: Rollout, rows: Tensor, mask: Tensor, mean_length: Tensor) -> Tensor:
        weights = decision_weights(mask, self.policy_loss.reduction, mean_length)
        return weights * rollout.answer_weights[rows, None]
