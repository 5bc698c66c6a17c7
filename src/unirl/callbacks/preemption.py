"""Preemption: on SIGTERM, save a checkpoint, print the command that resumes the run, and exit."""

import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

CHECKPOINT = "stopped.ckpt"


class Preempted(SIGTERMException):
    """Ends the process with exit code 0, since nothing was lost.

    Lightning 2.6 exits with 0 after a SIGTERM, later releases with 143.
    """

    def __init__(self) -> None:
        super().__init__()
        self.code = 0


class StopOnSigterm(Callback):
    """Saves `stopped.ckpt` after the optimizer step in which a SIGTERM arrives, and exits with code 0.

    All ranks finish the same step, whichever of them got the signal. Under SLURM, Lightning's own requeueing is used
    instead.
    """

    def __init__(self) -> None:
        self._signaled, self._saved, self._enabled, self._trained = False, False, False, False

    @override
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install_handler()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install_handler()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._trained = True
        stepped = not trainer.fit_loop.epoch_loop._should_accumulate()
        if self._enabled and stepped and trainer.strategy.reduce_boolean_decision(self._signaled, all=False):
            self._save(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # The run stops here and not in on_train_batch_end, so that the metrics of the step are logged.
        if self._saved:
            self._stop(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved:
            self._stop(trainer)

    @override
    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.state.fn != "fit" or not self._enabled:
            return
        if trainer.strategy.reduce_boolean_decision(self._signaled, all=False):
            if self._trained and not self._saved:  # before the first step it is a replayed validation
                self._save(trainer)
            self._stop(trainer)

    def _install_handler(self) -> None:
        # Lightning installs its handler after on_fit_start. It would stop between two batches of an optimizer step.
        self._enabled = not SLURMEnvironment.detect() and threading.current_thread() is threading.main_thread()
        if self._enabled:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_: Any) -> None:
        self._signaled = True

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path(trainer))
        self._saved = True

    def _stop(self, trainer: Trainer) -> None:
        if self._saved:
            command = resume_command(trainer, self._path(trainer))
            message = f"Stopped by SIGTERM after step {trainer.global_step}. Resume with: {command}"
        else:
            resume = f" Resume with: {resume_command(trainer, Path(trainer.ckpt_path))}" if trainer.ckpt_path else ""
            message = f"Stopped by SIGTERM before the first step; nothing had to be saved.{resume}"
        if trainer.is_global_zero:
            print(message, file=sys.stderr)
        raise Preempted

    def _path(self, trainer: Trainer) -> Path:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        return Path(folder or Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints") / CHECKPOINT


def resume_command(trainer: Trainer, path: Path) -> str:
    """The command that resumes a run.

    Args:
        trainer: Of the run.
        path: The checkpoint to resume from.
    """
    config = Path(trainer.log_dir) / "config.yaml" if trainer.loggers and trainer.log_dir else "CONFIG"
    return shlex.join(["unirl", "fit", "--config", str(config), "--ckpt_path", str(path)])
