"""Preemption: on a signal, save a checkpoint at the end of the step, print the command that resumes the run, and exit.

The signals are SIGTERM, the first SIGINT (Ctrl-C) and, under SLURM, the one after which the job is requeued (SIGUSR1).
"""

import os
import shlex
import signal
import sys
import threading
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from unirl.callbacks.results import run_dir
from unirl.distributed.slurm import requeue_job, requeue_signal

CHECKPOINT = "stopped.ckpt"


class Preempted(SIGTERMException):
    """Ends the process with an exit code of ours; Lightning 2.6 exits with 0 after a SIGTERM, later releases with 143.

    Args:
        code: 0 where a scheduler asked to stop, since nothing was lost. 130, the code of an interrupt, after Ctrl-C, so
            that commands that need the end of this one do not start.
    """

    def __init__(self, code: int = 0) -> None:
        super().__init__()
        self.code = code


class StopRequest(IntEnum):
    """What a signal asks for. Ranks agree on the largest request of any of them."""

    NONE = 0
    INTERRUPT = 1
    """Stop after Ctrl-C."""
    STOP = 2
    REQUEUE = 3
    """Stop, and put the SLURM job back in the queue."""


class StopOnSigterm(Callback):
    """Saves `stopped.ckpt` after the optimizer step in which a signal arrives, and exits with code 0.

    All ranks finish the same step, whichever of them got the signal. Under SLURM with `auto_requeue`, `requeue_signal`
    of Lightning's `SLURMEnvironment` (by default SIGUSR1) does the same and requeues the job. A handler of that signal
    that was installed before the run is left alone.

    The first Ctrl-C (SIGINT) does the same and exits with code 130; the second one ends the process at once.

    A validation is stopped after a batch that all ranks have; ranks with more batches than others finish those.
    `validate` and `test` save nothing: each rank that gets the signal ends after its batch.
    """

    def __init__(self) -> None:
        self._received, self._agreed = StopRequest.NONE, StopRequest.NONE
        self._saved, self._enabled, self._trained = False, False, False
        self._checks_left, self._is_global_zero = 0, True
        self._requeue_signal: signal.Signals | None = None

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._received, self._agreed = StopRequest.NONE, StopRequest.NONE  # a notebook may go on after a stopped run
        self._saved, self._trained = False, False

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install_handlers(trainer)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._trained = True
        if not trainer.fit_loop.epoch_loop._should_accumulate() and self._should_stop(trainer):
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
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install_handlers(trainer)
        if trainer.state.fn == "fit":
            self._stop_validation(trainer)
            # Asking is collective, and ranks may have unequally many batches.
            self._checks_left = min_over_ranks(trainer, sum(trainer.fit_loop.epoch_loop.val_loop.max_batches))

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.state.fn != "fit":
            self._stop_evaluation(trainer)
        elif self._checks_left > 0:
            self._checks_left -= 1
            self._stop_validation(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or not self._should_stop(trainer):
            return
        if trainer.sanity_checking:
            self._stop(trainer)
        if self._trained and not self._saved:  # otherwise a replayed validation, which the first step will save
            self._save(trainer)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install_handlers(trainer)

    @override
    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._stop_evaluation(trainer)

    def _stop_validation(self, trainer: Trainer) -> None:
        if self._should_stop(trainer):
            if self._trained and not self._saved:  # before the first step it is a replayed validation
                self._save(trainer)
            self._stop(trainer)

    def _install_handlers(self, trainer: Trainer) -> None:
        # Lightning has just installed its own. They stop, or save, between two batches of an optimizer step.
        self._enabled = threading.current_thread() is threading.main_thread()
        if not self._enabled:
            return
        signal.signal(signal.SIGTERM, self._on_sigterm)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and self._received != StopRequest.INTERRUPT:
            self._is_global_zero = trainer.is_global_zero
            signal.signal(signal.SIGINT, self._on_sigint)
        self._requeue_signal = requeue_signal(trainer)
        if self._requeue_signal is not None:
            signal.signal(self._requeue_signal, self._on_requeue)

    def _on_sigterm(self, *_: Any) -> None:
        self._received = max(self._received, StopRequest.STOP)

    def _on_sigint(self, *_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._received = max(self._received, StopRequest.INTERRUPT)
        if self._is_global_zero:  # not by print, which may have been interrupted
            os.write(2, b"\nStopping after this step; press Ctrl-C again to stop at once\n")

    def _on_requeue(self, *_: Any) -> None:
        self._received = StopRequest.REQUEUE

    def _should_stop(self, trainer: Trainer) -> bool:
        """Whether a signal has reached any rank. Collective: call it on every rank."""
        if self._enabled:
            self._agreed = StopRequest(int(_reduce(trainer, self._received, "max")))
        return self._agreed > StopRequest.NONE

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self._path(trainer), weights_only=False)
        self._saved = True

    def _stop(self, trainer: Trainer) -> None:
        self._should_stop(trainer)  # the signal to requeue may have followed SIGTERM
        resume_from, path = trainer.ckpt_path, self._path(trainer)
        if self._saved and path.exists():
            what, resume_from = f" after step {trainer.global_step}", path
        elif self._saved:  # the disk may be full, which is a warning
            what, resume_from = f" after step {trainer.global_step}, which could not be saved", "last"
        else:
            what = " before the first step; nothing had to be saved"
        command = resume_command(trainer, resume_from) if resume_from else None
        self._exit(trainer, self._agreed, what, f" Resume with: {command}" if command else "")

    def _stop_evaluation(self, trainer: Trainer) -> None:
        if self._received:
            self._exit(trainer, self._received, "; an evaluation saves nothing")

    def _exit(self, trainer: Trainer, request: StopRequest, what: str, resume: str = "") -> None:
        requeue, interrupt = request == StopRequest.REQUEUE, request == StopRequest.INTERRUPT
        name = "Ctrl-C" if interrupt else "SIGTERM"
        if requeue and self._requeue_signal:
            name = self._requeue_signal.name
        if trainer.is_global_zero:
            print(f"Stopped by {name}{what}.{requeue_job() if requeue else ''}{resume}", file=sys.stderr)
        # Lightning kills the first process if another one fails.
        raise Preempted(130 if interrupt and trainer.is_global_zero else 0)

    def _path(self, trainer: Trainer) -> Path:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        return Path(folder or Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints") / CHECKPOINT


def min_over_ranks(trainer: Trainer, count: float) -> int:
    """The smallest count of any rank; 0 where one is infinite. Collective: call it on every rank.

    Args:
        trainer: Of the run.
        count: That of this rank.
    """
    return int(_reduce(trainer, 0.0 if count == float("inf") else count, "min"))


def _reduce(trainer: Trainer, value: float, operation: str) -> float:
    if trainer.world_size == 1:  # without a tensor, whose value would have to come from the device
        return value
    tensor = torch.tensor(float(value), device=trainer.strategy.root_device)
    return float(trainer.strategy.reduce(tensor, reduce_op=operation))


def resume_command(trainer: Trainer, path: str | Path) -> str:
    """The command that resumes a run.

    Args:
        trainer: Of the run.
        path: The checkpoint to resume from, or "last".
    """
    folder = run_dir(trainer)
    config = "CONFIG" if folder is None else folder / "config.yaml"
    return shlex.join(["unirl", "fit", "--config", str(config), "--ckpt_path", str(path)])
