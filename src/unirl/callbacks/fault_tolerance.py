"""Callbacks that make a resumed run repeat what an uninterrupted one does."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from unirl.callbacks.missing_metrics import TolerateMissingMetrics
from unirl.callbacks.preemption import StopOnSigterm

VALIDATION_DUE = "validation_due"
"""Checkpoint key: whether a validation was due, or had not ended, when the checkpoint was saved."""


def fault_tolerance_callbacks() -> list[Callback]:
    """The callbacks that every run should have, in this order. `unirl fit` adds them.

    Example:
        >>> [type(callback).__name__ for callback in fault_tolerance_callbacks()]
        ['ReplayMissedValidation', 'StopOnSigterm', 'RestoreLastSavedStep', 'CountEpochOnce', 'TolerateMissingMetrics']
    """
    # A checkpoint that StopOnSigterm saves holds whether a validation is due.
    replayed = ReplayMissedValidation()
    return [replayed, StopOnSigterm(), RestoreLastSavedStep(), CountEpochOnce(), TolerateMissingMetrics()]


class ReplayMissedValidation(Callback):
    """Validates at the start of a resumed run if its checkpoint was saved before a due validation had ended.

    Lightning continues with the next step. Nothing is replayed where `max_steps` ends the run at that very step, since
    there is no training in which to validate. A resumed run does not repeat the validation before the first step
    (`num_sanity_val_steps`), which would measure a trained model.
    """

    def __init__(self) -> None:
        self._due, self._validated, self._epoch = False, False, 0

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[VALIDATION_DUE] = self._is_due(trainer)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._due, self._epoch = checkpoint.get(VALIDATION_DUE, False), checkpoint["epoch"]
        trainer.num_sanity_val_steps = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due:
            return
        self._due, val_loop = False, trainer.fit_loop.epoch_loop.val_loop
        epochs: Any = trainer.fit_loop.epoch_progress.current
        current = epochs.processed, epochs.completed
        epochs.processed = epochs.completed = self._epoch  # the next epoch may have begun
        trainer.validating, val_loop.restarting = True, False
        val_loop.run()
        val_loop._has_run = False  # the epoch must not take it for its own validation
        trainer.training = True
        epochs.processed, epochs.completed = current

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.validating:
            return not self._validated
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        batches: Any = loop.batch_progress.current
        in_step = batches.completed < batches.processed
        return in_step and fetcher is not None and loop._should_check_val_fx(fetcher)


class RestoreLastSavedStep(Callback):
    """Sets in ModelCheckpoint that the step a run is resumed from has been saved.

    ModelCheckpoint does not restore it, and with `accumulate_grad_batches` would save that step again after the next
    batch, when gradients have been accumulated that a checkpoint does not hold. Settings that save between two batches
    of a step are refused before a run starts (`unirl.doctor`).
    """

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and not callback._last_global_step_saved:
                callback._last_global_step_saved = trainer.global_step


class CountEpochOnce(Callback):
    """Counts an epoch once that had ended when the checkpoint of a resumed run was saved.

    With `max_steps`, Lightning ends that epoch again, without a step, and counts it twice: a run that `max_epochs`
    ends, too, would end an epoch early.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop: Any = trainer.fit_loop
        if getattr(loop, "restarted_on_epoch_end", False) and not loop.done:
            loop.epoch_progress.current.processed -= 1
            loop.epoch_progress.total.processed -= 1
