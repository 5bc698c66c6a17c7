"""Group relative policy optimisation: what scored better than its group becomes likelier, in drawing and in answering.

Source: Shao et al. 2024 (GRPO, arXiv 2402.03300) as UniRL (arXiv 2505.23380) uses it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import mean_over_processes
from unirl.errors import UserError, within
from unirl.functional.advantages import group_advantages
from unirl.functional.policy_gradient import Reduction, clipped_objective, decision_weights, k3
from unirl.functional.reductions import nothing
from unirl.types import ImageSampling, Rollout
from unirl.updates.base import UpdateRule, warn_of_guidance
from unirl.updates.reference import Reference

Scored = tuple[Tensor, Tensor]
"""Log-probabilities (R, A) and which of them are decisions, or the weights of these (R, A)."""
PARTS = ("image", "answer")


class GRPO(UpdateRule):
    """Group relative policy optimisation over drawing and answering, or one of them.

    With one update a rollout it is strictly on-policy: the ratio is exp(lp - stopgrad(lp)). With more, the
    log-probabilities of the policy that drew are computed once, before the first of them.

    Args:
        image_weight: Weight of drawing.
        answer_weight: Weight of answering.
        answers: Which answers learn. "accepted": those about accepted drawings. "all": the paper's choice; it pays for
            calling wrong drawings right (docs/method.md has what such answers cost SFT in seeing).
        normalize: Divide advantages by the group's standard deviation; off is Dr. GRPO's.
        epsilon: Added to that standard deviation.
        negative: Weight of samples that are worse than their group. What is worse for one prompt can be right for
            another one that training never draws; 0 learns from the better ones only (docs/trials.md).
        reduction: "sample" averages each sample's decisions first, "token" all decisions of the batch alike (DAPO).
            Drawings of a model all have equally many, so it matters for answers.
        clip_low: How far below 1 a ratio counts; matters with several updates a rollout.
        clip_high: How far above 1.
        beta: Weight of the KL divergence from the untrained model in drawing; the paper's run has 0.2.
        answer_beta: The same in answering, also where `answer_weight` is 0: it holds on to what the model says about
            its drawings. None takes `beta`; where both are 0, no reference is kept.
        likelihood: What of a drawing is scored. "decisions": codes in the context in which the sampler fixed them.
            "masks": a masked model's codes under random masks, each of which says something about every hidden code;
            the same in expectation for a sampler in random order.
        scored_steps: How many sampling steps are scored, of decisions; None scores them all.
        views: How many masks of a drawing are scored, of masks.
        score_guidance: Guidance under which drawings are scored; None takes the one they were drawn with.

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        answers: Literal["all", "accepted"] = "accepted",
        normalize: bool = True,
        epsilon: float = 1e-4,
        negative: float = 1.0,
        reduction: Reduction = "sample",
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        beta: float = 0.0,
        answer_beta: float | None = None,
        likelihood: Literal["decisions", "masks"] = "decisions",
        scored_steps: int | None = None,
        views: int = 1,
        score_guidance: float | None = None,
    ) -> None:
        answer_beta = beta if answer_beta is None else answer_beta
        within(0, 1e6, "grpo", image_weight=image_weight, answer_weight=answer_weight, negative=negative)
        within(0, 1e6, "grpo", beta=beta, answer_beta=answer_beta, epsilon=epsilon)
        within(0, 1e6, "grpo", clip_low=clip_low, clip_high=clip_high)
        within(1, 1000, "grpo", views=views, scored_steps=1 if scored_steps is None else scored_steps)
        within(-1, 1000, "grpo", score_guidance=0 if score_guidance is None else score_guidance)
        if not image_weight and not answer_weight:
            raise UserError("grpo: image_weight and answer_weight are both 0; one of them must be above 0 to train")
        self._weights = {"image": image_weight, "answer": answer_weight}
        self._betas = {"image": beta, "answer": answer_beta}
        self.answers, self.learns_accepted = answers, bool(answer_weight and answers == "accepted")
        self.normalize, self.epsilon, self.negative, self.reduction = normalize, epsilon, negative, reduction
        self.clip_low, self.clip_high = clip_low, clip_high
        self.likelihood, self.scored_steps, self.views = likelihood, scored_steps, views
        self.score_guidance = score_guidance
        self._reference: Reference | None = None

    def check(self, backbone: Backbone, group_size: int, sampling: ImageSampling) -> None:
        if group_size < 2:
            raise UserError(f"grpo compares the drawings of a group, and group_size is {group_size}; take 2 or more")
        if (self.scored_steps or 0) > sampling.steps:
            most = f"sampling.steps is {sampling.steps}; take at most {sampling.steps}, or null for all"
            raise UserError(f"grpo: scored_steps {self.scored_steps}, but {most}")
        warn_of_guidance("grpo", self.score_guidance, sampling)

    def attach(self, backbone: Backbone) -> None:
        if any(self._betas.values()):
            self._reference = Reference(backbone)

    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        if len(generators) == 1:
            return rollout  # on-policy: the present policy is the one that drew
        scored = [self._score(backbone, rollout, sampling, generator) for generator in generators]
        old = [{name: log_probs for name, (log_probs, _) in parts.items()} for parts in scored]
        return dataclasses.replace(rollout, old_log_probs=old)

    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        again = torch.Generator(generator.device).set_state(generator.get_state())
        policy = self._score(backbone, rollout, sampling, generator)
        anchors = self._anchors(backbone, rollout, sampling, again)
        advantages, loss = self._advantages(rollout), nothing(backbone)
        typical = mean_over_processes(rollout.answers.mask.sum(1).float().mean())
        # The same names on every process, also where its own samples have nothing to learn.
        names = [f"{name}_clipped" for name in PARTS] + [f"{name}_kl" for name in PARTS if self._betas[name]]
        logs = dict.fromkeys(names, advantages.new_zeros(()))
        for name, (log_probs, which) in policy.items():
            weights = self._averaged(name, which, typical)
            old = rollout.old_log_probs[rollout.update][name] if rollout.old_log_probs else log_probs.detach()
            gains = advantages if name == "image" else advantages * self._taught(rollout)
            gains = self._weights[name] * gains[self._rows(rollout, name)]
            term = -clipped_objective(log_probs - old, gains, self.clip_low, self.clip_high)
            logs[f"{name}_clipped"] = self._clipped(log_probs.detach() - old, weights)
            if self._betas[name]:
                kl = k3(log_probs, anchors[name][0])
                logs[f"{name}_kl"] = (kl.detach() * weights).sum() / len(advantages)
                term = term + self._betas[name] * kl
            loss = loss + (term * weights).sum() / len(advantages)
        return loss, logs

    def _score(
        self, backbone: Backbone, rollout: Rollout, *chance: Any, names: Sequence[str] = PARTS
    ) -> dict[str, Scored]:
        """Drawings and answers, of those named, that have something to learn, each scored under a model."""
        ways = {"image": self._drawings, "answer": self._said}
        rows = {name: self._rows(rollout, name) for name in names}
        return {name: ways[name](backbone, rollout, which, *chance) for name, which in rows.items() if len(which)}

    def _said(self, backbone: Backbone, rollout: Rollout, rows: Tensor, *_: Any) -> Scored:
        answers, questions = rollout.answers[rows], [rollout.questions[i] for i in rows.tolist()]
        log_probs = backbone.answer_log_probs(rollout.images[rows], questions, answers)
        return log_probs, answers.mask

    def _drawings(
        self, backbone: Backbone, rollout: Rollout, rows: Tensor, sampling: ImageSampling, generator: torch.Generator
    ) -> Scored:
        prompts, images = [rollout.prompts[i] for i in rows.tolist()], rollout.images[rows]
        if self.score_guidance is not None:
            sampling = dataclasses.replace(sampling, guidance=self.score_guidance)
        if self.likelihood == "masks":
            return backbone.picture_log_probs(prompts, images, sampling, self.views, generator)
        return backbone.image_log_probs(prompts, images, sampling, self.scored_steps, generator)

    def _averaged(self, name: str, which: Tensor, typical: Tensor) -> Tensor:
        """Weights of the decisions; random masks come with theirs."""
        weighted = name == "image" and self.likelihood == "masks"
        return which if weighted else decision_weights(which, self.reduction, typical if name == "answer" else None)

    def _anchors(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> dict[str, Scored]:
        if self._reference is None:
            return {}
        anchored = [name for name in PARTS if self._betas[name]]
        with self._reference.active(backbone) as reference:
            return self._score(reference, rollout, sampling, generator, names=anchored)

    def _rows(self, rollout: Rollout, name: str) -> Tensor:
        """Samples worth a forward pass: all with a KL term, otherwise those better or worse than their group."""
        if self._betas[name]:
            return torch.arange(len(rollout.scores), device=rollout.scores.device)
        worth = self._weights[name] * self._advantages(rollout)
        return (worth * self._taught(rollout) if name == "answer" else worth).nonzero().flatten()

    def _advantages(self, rollout: Rollout) -> Tensor:
        compared, weights = rollout.compared, rollout.weights
        advantages = group_advantages(compared, rollout.group_size, self.normalize, self.epsilon, weights)
        advantages = torch.where(advantages < 0, self.negative * advantages, advantages)
        return advantages if weights is None else advantages * weights

    def _taught(self, rollout: Rollout) -> Tensor:
        """1 where the answer is to be learnt."""
        return rollout.accepted.float().clamp(min=float(self.answers == "all"))

    def _clipped(self, log_ratio: Tensor, weights: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        outside = (ratio < 1 - self.clip_low) | (ratio > 1 + self.clip_high)
        return (outside * weights).sum() / weights.sum().clamp(min=1e-9)
