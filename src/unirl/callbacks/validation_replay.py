"""What a run that was killed had not come to: what it logged is on the disk, a validation that it missed is made up."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

KEY = "validation_due"


class KeepLogs(Callback):
    """Brings what TensorBoard was told to the disk after each step; it would wait for two minutes."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._flush(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._flush(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._flush(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._flush(trainer)

    def _flush(self, trainer: Trainer) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()


class ReplayMissedValidation(Callback):
    """Validates where a resumed run starts, if its checkpoint was saved before a validation that was due was over.

    Lightning goes on with the next step. Not where `max_steps` ends the run at that very step: there is no training
    left in which to validate.
    """

    def __init__(self) -> None:
        self._due, self._measured, self._epoch = False, False, 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measured = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measured = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self._is_due(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.validating:
            return not self._measured
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        done: Any = loop.batch_progress.current
        in_step = done.completed < done.processed
        return in_step and fetcher is not None and loop._should_check_val_fx(fetcher)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._due, self._epoch = checkpoint.get(KEY, False), checkpoint["epoch"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._due:
            return
        self._due, loop = False, trainer.fit_loop.epoch_loop.val_loop
        epochs: Any = trainer.fit_loop.epoch_progress.current
        now = epochs.processed, epochs.completed
        epochs.processed = epochs.completed = self._epoch  # the next one may have begun
        trainer.validating, loop.restarting = True, False
        loop.run()
        loop._has_run = False  # the epoch must not take it for its own
        trainer.training = True
        epochs.processed, epochs.completed = now
