"""SIGTERM: save where training stands, say how to go on, and leave."""

import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

NAME = "stopped.ckpt"


class StopOnSigterm(Callback):
    """Saves `stopped.ckpt` after the optimizer step in which a SIGTERM arrives, and ends the command with exit code 0.

    A step is finished by all processes, whichever of them got the signal. Under SLURM, Lightning's own requeueing is
    left alone.
    """

    def __init__(self) -> None:
        self._asked, self._saved, self._ours, self._trained = False, False, False, False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def _listen(self) -> None:
        # In place of Lightning's handler, which is set after `on_fit_start`: it would stop between two batches whose
        # gradients are added up.
        self._ours = not SLURMEnvironment.detect() and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGTERM, self._ask)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._trained = True
        stepped = not trainer.fit_loop.epoch_loop._should_accumulate()
        if self._ours and stepped and trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            self._save(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        # Only now: by here, what the step logged is written.
        if self._saved:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved:
            self._leave(trainer)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.state.fn != "fit" or not self._ours:
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            if self._trained and not self._saved:  # or it is one that a killed run missed
                self._save(trainer)
            self._leave(trainer)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path(trainer))
        self._saved = True

    def _leave(self, trainer: Trainer) -> None:
        if self._saved:
            command = how(trainer, self._path(trainer))
            said = f"Stopped by SIGTERM after step {trainer.global_step}. Go on with: {command}"
        else:
            again = f" Go on with: {how(trainer, Path(trainer.ckpt_path))}" if trainer.ckpt_path else ""
            said = f"Stopped by SIGTERM before the first step; nothing had to be saved.{again}"
        if trainer.is_global_zero:
            print(said, file=sys.stderr)
        raise SIGTERMException

    def _path(self, trainer: Trainer) -> Path:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        return Path(folder or Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints") / NAME


def how(trainer: Trainer, path: Path) -> str:
    """The command that goes on from a checkpoint."""
    config = Path(trainer.log_dir) / "config.yaml" if trainer.loggers and trainer.log_dir else "CONFIG"
    return shlex.join(["unirl", "fit", "--config", str(config), "--ckpt_path", str(path)])
