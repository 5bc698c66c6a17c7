"""Guards against failures that no exception reports: collapsed rewards, reward hacking, gradients that are not finite.

Each guard is a dataclass that checks numbers and yields warnings; `Guards` is the callback that calls them.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.markup import escape
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from typing_extensions import override

from unirl.callbacks.results import is_partial_sanity_check
from unirl.functional import difference_errors
from unirl.hooks import hookimpl
from unirl.output import escape_unknown_characters
from unirl.types import Rollout

WINDOW = 10
"""Rollouts over which the training reward is averaged."""
MOST_CLIPPED = 0.5
"""Share of answers that were cut off above which that is named as the cause of equal rewards."""
CLIPPED = (
    "First raise model.rollout.answer_sampling.max_tokens: {clipped:.0%} of the answers of the last one were cut off "
    "at {max_tokens} tokens before they ended (completions/clipped_ratio). "
)
NUM_ERRORS = 2.0
"""Standard errors of the difference up to which a drop of accuracy may be chance."""


class Guards(Callback):
    """Prints a warning about failures that would go unnoticed, and skips steps whose gradient is not finite.

    Each event is reported once. Warnings are counted in the log (`guards/warnings`) and kept in the attribute
    `warnings`. 0 switches a guard off.

    Args:
        zero_variance_patience: Consecutive rollouts in which all samples of every group have the same reward. Samples
            that quality control dropped are ignored.
        zero_accepted_patience: Consecutive rollouts without an accepted sample. Only for update rules that train on
            accepted samples.
        max_logprob_gap: Largest difference, in nats, of log-probabilities between sampling and scoring before the first
            step. At least 1 in lower precision than 32 bits.
        min_diversity: Smallest diversity of images, relative to that of the first validation, [0, 1].
        max_reward_rise: Largest rise of the training reward while the accuracy of generation drops by more than
            `max_accuracy_drop`.
        max_accuracy_drop: Largest drop of accuracy below the first validation, [0, 1]: of generation, of understanding,
            and of each of their categories. A drop below two standard errors is not reported, whatever its size: with
            60 images in a category these are 0.18 where half are correct, with 8 images 0.5.
        skip_non_finite: Skip optimizer steps whose gradient is not finite, on all ranks.

    Example:
        >>> Guards(max_accuracy_drop=0.2).warnings
        []
    """

    metric_names = ("guards/warnings", "guards/skipped_steps")
    """What it logs."""

    def __init__(
        self,
        zero_variance_patience: int = 20,
        zero_accepted_patience: int = 20,
        max_logprob_gap: float = 1e-3,
        min_diversity: float = 0.7,
        max_reward_rise: float = 0.02,
        max_accuracy_drop: float = 0.1,
        skip_non_finite: bool = True,
    ) -> None:
        self.zero_variance = ZeroVariance(zero_variance_patience)
        self.zero_accepted = ZeroAccepted(zero_accepted_patience)
        self.logprob_gap, self.non_finite = LogprobGap(max_logprob_gap), NonFiniteGradients()
        self.validation = ValidationTrend(min_diversity, max_reward_rise, max_accuracy_drop)
        self.skip_non_finite = skip_non_finite
        self.warnings: list[str] = []
        self._rewards: list[float] = []
        self._new_rollout = False
        self._trainer: Trainer | None = None
        self._module: Any = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer, self._module = trainer, pl_module
        escape_unknown_characters()

    @hookimpl
    def unirl_rollout_scored(self, rollout: Rollout) -> None:
        """Before the first step, compare the log-probabilities of one sample from sampling and from scoring."""
        self._new_rollout = True
        if self._trainer is None or self._trainer.global_step:
            return
        full_precision, first = str(self._trainer.precision).startswith("32"), slice(0, 1)
        backbone, sampling = self._module.backbone, self._module.rollout.image_sampling
        images, answers = rollout.images[first], rollout.answers[first]
        if images.log_probs is not None:
            generator = torch.Generator(images.log_probs.device).manual_seed(0)
            scored, mask = backbone.image_log_probs(rollout.prompts[first], images, sampling, 4, generator)
            gap = ((scored - images.log_probs) * mask).abs().max().item()
            self._warn(self.logprob_gap.check(gap, "images", full_precision))
        if answers.log_probs is not None:
            scored = backbone.answer_log_probs(images, rollout.questions[first], answers)
            gap = ((scored - answers.log_probs) * answers.mask).abs().max().item()
            self._warn(self.logprob_gap.check(gap, "answers", full_precision))

    @hookimpl
    def unirl_validated(self, metrics: Mapping[str, float]) -> None:
        """Compare a validation with the first one of the run."""
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit" or is_partial_sanity_check(trainer):
            return
        rewards, self._rewards = self._rewards, []
        counts = getattr(getattr(self._module, "evaluator", None), "counts", {})
        self._warn(self.validation.check(metrics, rewards, counts))

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self.skip_non_finite:
            return
        name = _first_non_finite(pl_module)
        if trainer.strategy.reduce_boolean_decision(name is not None, all=False):
            for parameter in pl_module.parameters():
                parameter.grad = None  # optimizers skip parameters without a gradient
            self._warn(self.non_finite.check(name or "another process", trainer.global_step))

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._new_rollout:  # with num_iterations, several steps train on one rollout
            self._check_rollout(trainer.callback_metrics)
        self._new_rollout = False
        counts = float(len(self.warnings)), float(self.non_finite.skipped)
        pl_module.log_dict(dict(zip(self.metric_names, counts, strict=True)))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "zero_variance": self.zero_variance.streak,
            "zero_accepted": self.zero_accepted.streak,
            "skipped": self.non_finite.skipped,
            "validation": self.validation.state_dict(),
            "rewards": self._rewards,
            "warnings": self.warnings,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.zero_variance.streak = state_dict["zero_variance"]
        self.zero_accepted.streak = state_dict["zero_accepted"]
        self.non_finite.skipped = state_dict["skipped"]
        self.validation.load_state_dict(state_dict["validation"])
        self._rewards, self.warnings = state_dict["rewards"], state_dict["warnings"]

    def _check_rollout(self, metrics: Mapping[str, Tensor]) -> None:
        """Check what was logged about a new rollout, which is reduced over all ranks."""
        names = "reward", "frac_reward_zero_std", "frac_accepted", "completions/clipped_ratio"
        reward, frac_zero_variance, frac_accepted, clipped = (float(metrics.get(name, math.nan)) for name in names)
        self._rewards.append(reward)
        cause = ""
        if clipped > MOST_CLIPPED:
            max_tokens = self._module.rollout.answer_sampling.max_tokens
            cause = CLIPPED.format(clipped=clipped, max_tokens=max_tokens)
        if self._module.rollout.group_size > 1:  # a group of one has no variance
            self._warn(self.zero_variance.check(frac_zero_variance, reward, cause))
        if self._module.update.learns_from_accepted:
            self._warn(self.zero_accepted.check(frac_accepted, reward, cause))

    def _warn(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            self.warnings.append(warning)
            if self._trainer is None or self._trainer.is_global_zero:
                _print(warning)


@dataclass
class StreakCounter:
    """Counts consecutive rollouts with a condition that is harmless once.

    Args:
        patience: Length of a streak that is reported; 0 for never.
        streak: Current length.
    """

    patience: int
    streak: int = 0

    def update(self, condition: bool) -> bool:
        """Count a rollout. True when the streak reaches `patience`, once for each streak."""
        self.streak = self.streak + 1 if condition else 0
        return self.patience > 0 and self.streak == self.patience


class ZeroVariance(StreakCounter):
    """All groups have zero variance of rewards: there is no advantage to train on."""

    def check(self, frac_zero_variance: float, reward: float, cause: str = "") -> Iterator[str]:
        """Check a rollout.

        Args:
            frac_zero_variance: Fraction of groups whose samples, without dropped ones, have the same reward.
            reward: Mean reward.
            cause: What to do first, a sentence and a blank; empty where no cause is known.
        """
        if self.update(frac_zero_variance == 1):
            prompts = "harder" if reward > 0.5 else "easier"
            yield (
                f"in each of the last {self.patience} rollouts, all samples of every group had the same reward (mean "
                f"{reward:.2f}), so there was no advantage to train on. {'' if reward > 0.5 else cause}Try {prompts} "
                "prompts, larger groups, a higher sampling temperature, or a reward with partial credit"
            )


class ZeroAccepted(StreakCounter):
    """No sample was accepted, where the update rule trains on accepted samples."""

    def check(self, frac_accepted: float, reward: float, cause: str = "") -> Iterator[str]:
        """Check a rollout.

        Args:
            frac_accepted: Fraction of samples that were accepted and not dropped.
            reward: Mean reward.
            cause: As for `ZeroVariance`.
        """
        if self.update(frac_accepted == 0):
            yield (
                f"in each of the last {self.patience} rollouts, no sample was accepted (mean reward {reward:.2f}), so "
                f"an update rule that trains on accepted samples had none. {cause}Try easier prompts or larger groups; "
                "set the sum of rewards that counts as correct (model.rollout.accept_threshold) where a reward never "
                "reaches its maximum; or train on relative rewards (grpo)"
            )


@dataclass
class LogprobGap:
    """Sampling and scoring disagree about the log-probabilities of the first samples.

    Args:
        max_gap: Largest difference that passes, in nats; 0 switches the guard off.
        max_gap_low_precision: The same in lower precision than 32 bits, where rounding makes differences.
    """

    max_gap: float
    max_gap_low_precision: float = 1.0

    def check(self, gap: float, samples: str = "images", full_precision: bool = True) -> Iterator[str]:
        """Check the largest difference before the first step.

        Args:
            gap: The difference, in nats.
            samples: "images" or "answers".
            full_precision: Whether training is in 32 bits.
        """
        allowed = self.max_gap if full_precision else max(self.max_gap, self.max_gap_low_precision)
        if self.max_gap and not gap <= allowed:
            option = "model.rollout.answer_sampling.temperature: 0 or 1, or " if samples == "answers" else ""
            yield (
                f"log-probabilities of {samples} from sampling and from scoring differ by {gap:.2g} nats before the "
                f"first step (allowed: {allowed:g}), so the ratios of GRPO are wrong. The backbone scores other "
                f"decisions than it sampled, or scores them under other settings. Try {option}the checks of the "
                "backbone in unirl.testing"
            )


@dataclass
class NonFiniteGradients:
    """Optimizer steps that were skipped because their gradient is not finite.

    Args:
        skipped: Number of skipped steps.
    """

    skipped: int = 0

    def check(self, where: str, step: int) -> Iterator[str]:
        """Count a skipped step. The 1st, 2nd, 4th, 8th ... are reported.

        Args:
            where: Name of a parameter whose gradient is not finite.
            step: Index of the optimizer step.
        """
        self.skipped += 1
        if self.skipped & (self.skipped - 1) == 0:
            yield (
                f"step {step} was skipped on all processes: the gradient of {where} is not finite (skipped steps so "
                f"far: {self.skipped}). The weights are unchanged. Try a lower learning rate, gradient clipping, or "
                "full precision"
            )


@dataclass
class ValidationTrend:
    """Compares validations with the first one of the run.

    Args:
        min_diversity: Smallest diversity relative to the first validation; 0 switches it off.
        max_reward_rise: Largest rise of the training reward while generation drops by more than `max_accuracy_drop`; 0
            switches it off.
        max_accuracy_drop: Largest drop of accuracy, overall or in a category, [0, 1]; 0 switches this and the check of
            the reward off.
        baseline: Metrics of the first validation.
        baseline_reward: Mean training reward of the first rollouts.
        active: Warnings of the last validation. One that persists is not reported again.
    """

    min_diversity: float
    max_reward_rise: float
    max_accuracy_drop: float
    baseline: dict[str, float] = field(default_factory=dict)
    baseline_reward: float | None = None
    active: list[str] = field(default_factory=list)

    def check(
        self, metrics: Mapping[str, float], rewards: Sequence[float], counts: Mapping[str, int] | None = None
    ) -> Iterator[str]:
        """Check a validation.

        Args:
            metrics: Its metrics, such as "generation/counting".
            rewards: Mean training rewards of the rollouts since the last validation.
            counts: Samples behind each accuracy, by the same names. Without them, no drop counts as chance.
        """
        self.baseline = self.baseline or dict(metrics)
        if rewards and self.baseline_reward is None:
            self.baseline_reward = _mean(rewards[:WINDOW])
        drops = self._drops(metrics, counts or {})
        warnings = dict(self._diversity_loss(metrics))
        if rewards and self.max_reward_rise and self.max_accuracy_drop:
            warnings |= dict(self._reward_hacking(drops, _mean(rewards[-WINDOW:])))
        if self.max_accuracy_drop:
            warnings |= dict(self._accuracy_drop(drops))
        new = [warning for key, warning in warnings.items() if key not in self.active]
        self.active = list(warnings)
        yield from new

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"baseline": self.baseline, "baseline_reward": self.baseline_reward, "active": self.active}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.baseline, self.baseline_reward = state_dict["baseline"], state_dict["baseline_reward"]
        self.active = state_dict["active"]

    def _diversity_loss(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        for name in ("diversity/codes", "diversity/features"):
            value, baseline = metrics.get(name), self.baseline.get(name)
            if value is not None and baseline and value < self.min_diversity * baseline:
                yield (
                    name,
                    f"images of one prompt become similar: {name} fell from {baseline:.2f} to {value:.2f}, so the "
                    "policy is collapsing. Try a KL penalty (grpo's kl.beta), quality control of duplicates, a lower "
                    "learning rate, or stop here",
                )

    def _drops(self, metrics: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, tuple[float, float]]:
        """Accuracies that fell by more than is allowed and by more than chance explains: before and now, by name."""
        found: dict[str, tuple[float, float]] = {}
        for task in ("generation", "understanding"):
            before, now, sizes = (_below(task, values) for values in (self.baseline, metrics, counts))
            errors = difference_errors(before, now, {name: int(size) for name, size in sizes.items()})
            for name in before.keys() & now.keys():
                drop = before[name] - now[name]
                if drop > self.max_accuracy_drop and drop > NUM_ERRORS * errors.get(name, 0.0):
                    found[f"{task}/{name}"] = before[name], now[name]
        return {name: found[name] for name in metrics if name in found}

    def _reward_hacking(self, drops: Mapping[str, tuple[float, float]], reward: float) -> Iterator[tuple[str, str]]:
        baseline_reward = self.baseline_reward
        if "generation/overall" not in drops or baseline_reward is None:
            return
        before, now = drops["generation/overall"]
        if reward > baseline_reward + self.max_reward_rise:
            yield (
                "reward_hacking",
                f"the training reward rose from {baseline_reward:.2f} to {reward:.2f} while the judge's accuracy of "
                f"generation fell from {before:.2f} to {now:.2f}: the reward is being hacked. Look at the images "
                "and at the self-reward column, and change the reward rather than the learning rate",
            )

    def _accuracy_drop(self, drops: Mapping[str, tuple[float, float]]) -> Iterator[tuple[str, str]]:
        for name, (before, now) in drops.items():
            task, _, category = name.partition("/")
            drop = f"{category} from {before:.2f} to {now:.2f}"
            advice = "more such prompts, a lower learning rate, or a KL penalty (grpo)"
            advice += ", or a lower answer_weight" if task == "understanding" else ""
            yield name, f"{task} fell below its first validation: {drop}. Try {advice}"


def _below(task: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values of a task by category."""
    return {name.removeprefix(f"{task}/"): v for name, v in values.items() if name.startswith(f"{task}/")}


def _print(warning: str) -> None:
    console = Console(stderr=True)
    with console.capture() as captured:
        console.print(f"[yellow]warning:[/] {escape(warning)}.", highlight=False, soft_wrap=True)
    # Not by the console, which would write into a progress bar.
    print(captured.get(), end="", file=sys.stderr, flush=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _first_non_finite(module: torch.nn.Module) -> str | None:
    """The first parameter whose gradient is not finite. One check for all: each waits for the device."""
    grads = {name: _local(p.grad) for name, p in module.named_parameters() if p.grad is not None}
    finite = torch.stack([torch.isfinite(grad).all() for grad in grads.values()]).tolist() if grads else []
    return next((name for name, is_finite in zip(grads, finite, strict=True) if not is_finite), None)


def _local(grad: Tensor) -> Tensor:
    """The shard of a gradient that this rank holds: checking it is not collective."""
    return grad.to_local() if isinstance(grad, DTensor) else grad
