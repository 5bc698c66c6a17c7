"""How long a run is, when it validates and saves, and settings of its length that contradict each other."""

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from unirl.doctor.findings import Finding

SUBJECT = "length"


def check_length(data: Any, trainer: Any) -> Iterator[Finding]:
    """Check that a run trains, that its shortest length is below its longest, and that it saves before its end.

    Args:
        data: The LightningDataModule.
        trainer: Of the run.
    """
    if problem := _no_training(trainer):
        advice = "take more, or leave it out; `unirl validate` measures a model without training"
        yield Finding("error", SUBJECT, f"{problem}: the run would train nothing", advice)
        return
    if trainer.fast_dev_run:
        return
    total = num_batches(data, trainer)
    for name, least in _shortest(data, trainer).items():
        if total < least < math.inf:
            limits = f"max_steps {trainer.max_steps} and max_epochs {trainer.max_epochs} end the run after {total:.0f}"
            text = f"trainer.{name} {getattr(trainer, name)} needs {least:.0f} batches, and {limits}"
            yield Finding("error", SUBJECT, text, f"lower {name}, or raise the others")
    yield from _check_saving(data, trainer)


def _shortest(data: Any, trainer: Any) -> dict[str, float]:
    """Training batches that a run has at least, by option."""
    by_epochs = trainer.min_epochs * epoch_length(data, trainer) if trainer.min_epochs else 0
    return {"min_epochs": by_epochs, "min_steps": (trainer.min_steps or 0) * trainer.accumulate_grad_batches}


def _no_training(trainer: Any) -> str | None:
    """The option after which nothing is trained."""
    for name in ("max_steps", "max_epochs", "limit_train_batches"):
        if getattr(trainer, name) == 0:
            return f"trainer.{name} 0"
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and callback._duration is not None and callback._duration <= 0:
            return f"trainer.max_time, or a Timer, of {timedelta(seconds=callback._duration)}"
    return None


def _check_saving(data: Any, trainer: Any) -> Iterator[Finding]:
    """Warn where a ModelCheckpoint saves nothing before the end of the run."""
    total, epoch = num_batches(data, trainer), epoch_length(data, trainer)
    validation = first_validation(data, trainer)
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or callback.save_top_k == 0:
            continue
        first = _first_save(callback, trainer, epoch, validation)
        if first <= total:
            continue
        when = f"the run has {total:.0f}" if math.isfinite(total) else "the run has no validation"
        text = f"ModelCheckpoint saves nothing before the end: after {first:.0f} batches at the earliest, and {when}"
        if math.isinf(first):
            text = "ModelCheckpoint saves nothing before the end: it saves after a validation, and the run has none"
        yield Finding("warning", "checkpoints", text, "set its every_n_train_steps, or trainer.val_check_interval")


def _first_save(callback: ModelCheckpoint, trainer: Any, epoch: float, validation: float) -> float:
    """Training batches before the first checkpoint, at the earliest."""
    if callback._train_time_interval is not None:
        return 0
    if callback._every_n_train_steps:
        steps = callback._every_n_train_steps * trainer.accumulate_grad_batches
        return steps if callback.monitor is None or not callback.monitor.startswith("val/") else max(steps, validation)
    if not callback._every_n_epochs:
        return 0  # switched off, as Lightning documents
    at_epoch_end = trainer.check_val_every_n_epoch == 1 and (
        math.isinf(validation) or trainer.val_check_interval in (1.0, epoch)
    )
    if callback._save_on_train_epoch_end is not None:
        at_epoch_end = callback._save_on_train_epoch_end
    if at_epoch_end:
        return 0 if callback._every_n_epochs == 1 else callback._every_n_epochs * epoch
    return max(validation, (callback._every_n_epochs - 1) * epoch)


def num_batches(data: Any, trainer: Any) -> float:
    """Training batches of a run; infinite where they are not known.

    Args:
        data: The LightningDataModule.
        trainer: Of the run.
    """
    epoch = epoch_length(data, trainer)
    by_epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs * epoch
    by_steps = math.inf if trainer.max_steps == -1 else trainer.max_steps * trainer.accumulate_grad_batches
    return min(by_epochs, by_steps)


def epoch_length(data: Any, trainer: Any) -> float:
    """Training batches of an epoch; infinite where they are not known. Arguments as for `num_batches`."""
    length, limit = getattr(data, "steps_per_epoch", None), trainer.limit_train_batches
    if not isinstance(length, int):
        return math.inf
    return min(length, limit) if isinstance(limit, int) else int(length * limit)


def first_validation(data: Any, trainer: Any) -> float:
    """Training batches before the first validation, at the earliest; infinite for none. Arguments as for `num_batches`.

    A validation before training does not count: nothing is saved or compared after it.
    """
    if not len(getattr(data, "val_examples", (None,))) or not trainer.limit_val_batches:
        return math.inf
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return 0
    length, interval = epoch_length(data, trainer), trainer.val_check_interval
    if math.isinf(length):
        return 0
    every = interval if isinstance(interval, int) else int(length * interval)
    if trainer.check_val_every_n_epoch is None:
        return every
    return (trainer.check_val_every_n_epoch - 1) * length + every
