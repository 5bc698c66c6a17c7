"""Which metrics a run logs, before it starts: for callbacks that watch one."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from unirl.rewards.scoring import unique_names
from unirl.training.module import SelfImprovement
from unirl.types import Example

OWN_PACKAGES = ("lightning", "pytorch_lightning", "unirl")
"""Callbacks of these packages log what they say in `metric_names`, and nothing else."""
LOG_ANYTHING = ("LambdaCallback", "LearningRateMonitor")
"""Callbacks of Lightning that log under names which depend on their arguments."""


@dataclass(frozen=True)
class LoggedMetrics:
    """The metrics of a run.

    Args:
        training: Names that training logs, such as "reward".
        validation: Names that a validation logs, such as "val/generation/overall".
        others: Who may log more, under names that are not known.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All known names."""
        return (*self.training, *self.validation)


def logged_metrics(model: Any, data: Any, callbacks: Sequence[object]) -> LoggedMetrics | None:
    """What a run logs.

    Args:
        model: The LightningModule; it need not be built.
        data: The LightningDataModule.
        callbacks: Of the trainer.

    Returns:
        None for a module of another kind.
    """
    if not isinstance(model, SelfImprovement):
        return None
    examples: Sequence[Example] = getattr(data, "val_examples", ())
    others = [] if type(model) is SelfImprovement else [type(model).__name__]
    training = [*_of_training(model), *_of_rule(model, others), *_of_sampler(data)]
    for callback in callbacks:
        names: Collection[str] | None = getattr(callback, "metric_names", None)
        training += names or ()
        if names is None and _logs_anything(callback):
            others.append(type(callback).__name__)
    validation = [f"val/{name}" for name in model.evaluator.metric_names(examples)] if len(examples) else []
    return LoggedMetrics(tuple(dict.fromkeys(training)), tuple(validation), tuple(others))


def _of_training(model: SelfImprovement) -> Iterator[str]:
    """What a training step logs, whatever the rule. A test compares it with what a run has logged."""
    yield from (
        "loss",
        "reward",
        "reward_std",
        "frac_reward_zero_std",
        "frac_accepted",
        "completions/mean_length",
        "completions/clipped_ratio",
    )
    yield from ("grad_norm", "learning_rate", "entropy/image")
    if model.rollout.answer_sampling.temperature > 0:
        yield "entropy/answer"
    yield from (f"rewards/{name}/mean" for name in unique_names(model.rewards))


def _of_rule(model: SelfImprovement, others: list[str]) -> Collection[str]:
    names = model.update.metric_names
    if names is None:
        others.append(type(model.update).__name__)
    return names or ()


def _of_sampler(data: Any) -> Iterator[str]:
    sampler = getattr(data, "adaptive_sampler", None)
    if sampler is not None:
        yield from (f"data/share/{name}" for name in sampler.shares(0))


def _logs_anything(callback: object) -> bool:
    package = type(callback).__module__.partition(".")[0]
    return package not in OWN_PACKAGES or type(callback).__name__ in LOG_ANYTHING
