"""Checks of the metrics that callbacks and schedules watch, and of those in the names of checkpoints."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn

from unirl.callbacks.missing_metrics import ALWAYS, template_names
from unirl.doctor.findings import Finding
from unirl.doctor.run_length import first_validation, num_batches
from unirl.training.logged import LoggedMetrics, logged_metrics

SUBJECT = "metrics"
HIGHER_IS_BETTER = ("reward", "rewards/", "val/", "frac_accepted")
LOWER_IS_BETTER = ("loss", "kl/", "frac_reward_zero_std", "guards/", "val/consistency/imbalance")


@dataclass(frozen=True)
class Watched:
    """A metric that something watches.

    Args:
        owner: The option, for the message.
        name: The metric.
        mode: Which values are better; None where nothing is compared.
    """

    owner: str
    name: str
    mode: Literal["min", "max"] | None = None


def check_watched_metrics(model: Any, data: Any, trainer: Trainer) -> Iterator[Finding]:
    """Check that each metric that is watched is logged, and before the end of the run.

    Args:
        model: The LightningModule; it need not be built.
        data: The LightningDataModule.
        trainer: Of the run.
    """
    templates = [*_templates(trainer)]
    watched = [*_watched(model, trainer)]
    names = [Watched(owner, name) for owner, callback in templates for name in template_names(callback.filename or "")]
    if watched or names:
        logged = logged_metrics(model, data, trainer.callbacks)  # type: ignore[attr-defined]
        if logged is not None:
            never = first_validation(data, trainer) > num_batches(data, trainer)
            for one in [*watched, *names]:
                yield from _check(one, logged, never)
    for owner, callback in templates:
        yield from _check_template(owner, callback)


def _watched(model: Any, trainer: Trainer) -> Iterator[Watched]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        if isinstance(name, str):
            mode: Any = callback.mode if isinstance(callback, ModelCheckpoint | EarlyStopping) else None
            yield Watched(f"{type(callback).__name__}'s monitor", name, mode)
    make_scheduler = getattr(model, "lr_scheduler", None)
    if make_scheduler is not None:
        scheduler = make_scheduler(torch.optim.SGD([nn.Parameter(torch.zeros(1, dtype=torch.float32))], lr=1e-3))
        if isinstance(scheduler, ReduceLROnPlateau):
            yield Watched("model.lr_scheduler's monitor", scheduler.monitor, scheduler.mode)


def _templates(trainer: Trainer) -> Iterator[tuple[str, ModelCheckpoint]]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint) and callback.filename:
            yield f"{type(callback).__name__}'s filename", callback


def _check(watched: Watched, logged: LoggedMetrics, never: bool) -> Iterator[Finding]:
    """Check one metric.

    Args:
        watched: Which.
        logged: What the run logs.
        never: Whether the run has no validation.
    """
    start = f"{watched.owner} {watched.name!r}"
    if watched.name not in logged.names:
        advice = _advice(watched.name, logged.names)
        if logged.others:
            text = f"{start} is logged only if {', '.join(logged.others)} logs it; without it, it is ignored"
            yield Finding("warning", SUBJECT, text, advice)
        else:
            yield Finding("error", SUBJECT, f"{start}: this run logs no such metric", advice)
    elif watched.name in logged.validation and never:
        text = f"{start} is logged by a validation, and the run ends before there is one"
        advice = "set trainer.val_check_interval to fewer steps, or watch a metric of training, such as reward"
        yield Finding("error", SUBJECT, text, advice)
    elif watched.mode is not None and (better := _better(watched.name)) not in (None, watched.mode):
        text = f"{start} with mode {watched.mode}: {'high' if better == 'max' else 'low'} values of it are better"
        yield Finding("warning", SUBJECT, text, f"set mode: {better}")


def _advice(name: str, names: Sequence[str]) -> str:
    """The nearest names, or those that end alike, and all names."""
    alike = [one for one in names if one.rpartition("/")[2] == name.rpartition("/")[2]]
    close = difflib.get_close_matches(name, names, 3, cutoff=0.5) or alike[:3]
    nearest = f"nearest: {', '.join(close)}; " if close else ""
    return f"{nearest}logged are {', '.join(sorted(names))}"


def _better(name: str) -> str | None:
    if name.startswith(LOWER_IS_BETTER):
        return "min"
    return "max" if name.startswith(HIGHER_IS_BETTER) and name != "reward_std" else None


def _check_template(owner: str, callback: ModelCheckpoint) -> Iterator[Finding]:
    """Make a name of a checkpoint as the callback does, with other numbers."""
    assert callback.filename is not None
    if callback.auto_insert_metric_name and any("/" in name for name in template_names(callback.filename)):
        text = f"{owner} {callback.filename!r}: the slash in the name of a metric would make folders"
        advice = "set its auto_insert_metric_name: false, so that only the value is in the name of the file"
        yield Finding("error", SUBJECT, text, advice)
    numbers = dict.fromkeys(ALWAYS, torch.tensor(1))
    numbers |= dict.fromkeys(template_names(callback.filename), torch.tensor(0.5))
    try:
        callback.format_checkpoint_name(numbers, callback.filename)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        text = f"{owner} {callback.filename!r}: {error}"
        yield Finding("error", SUBJECT, text, "write names in braces, such as 'epoch{epoch}-reward{reward:.3f}'")
