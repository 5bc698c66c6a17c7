"""Signals to one of two processes, which have unequally many validation batches: none waits for what another lacks."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package
sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))

from interrupted_runs import Interrupted, make_model
from processes import exit_codes

from unirl.callbacks import Guards, LogImages, QualityControl, ResultsTable, fault_tolerance_callbacks
from unirl.callbacks.fault_tolerance import VALIDATION_DUE
from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer, find_corruption
from unirl.checkpoint.sharded import META
from unirl.distributed.strategies import register
from unirl.training import EvaluationConfig, PromptsDataModule
from unirl.training.evaluation import Evaluator
from unirl.types import AnswerSampling, ImageSampling
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

TIMEOUT = 120.0


class Signaled(Interrupted):
    """The first rank gets SIGTERM in the validation after the second step, or the second one SIGUSR1 in a step."""

    sigterm_in: int | None = None

    sigusr1_in_step: int | None = None

    def on_after_backward(self) -> None:
        super().on_after_backward()
        assert self.rollouts.reward_timeout == 900  # half of what the other process waits
        if self.global_rank == 1 and self.trainer.global_step == self.sigusr1_in_step:
            os.kill(os.getpid(), signal.SIGUSR1)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.val_batches = [*getattr(self, "val_batches", []), (self.trainer.global_step, batch_idx)]
        torch.save(self.val_batches, self.folder / f"val_batches-{self.global_rank}.pt")
        if self.global_rank == 0 and self.val_batches[-1] == (2, self.sigterm_in):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().validation_step(batch, batch_idx)


def fit(
    folder: Path,
    checkpoint: Path,
    strategy: str,
    sigterm_in: int | None = None,
    sigusr1_in_step: int | None = None,
    environment: Sequence[type[ClusterEnvironment]] = (),
) -> None:
    """Steps that are each followed by a validation of 3 prompts: the first rank has two batches, the second one."""
    register()
    judge = ShapesJudge()
    model: Any = make_model("showo", checkpoint, "sft", folder)
    model.__class__, model.sigterm_in, model.sigusr1_in_step = Signaled, sigterm_in, sigusr1_in_step
    config = EvaluationConfig(num_understanding=3, num_diversity_prompts=1)
    model.evaluator = Evaluator(model.rollouts, judge, config, ImageSampling(2), AnswerSampling(2))
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=4, num_val_prompts=3, val_batch_size=1)
    best = ModelCheckpoint(folder / "checkpoints", monitor="val/diversity/codes", save_last="link")
    watching = [Guards(), LogImages(), ResultsTable(), QualityControl()]
    trainer = AtomicTrainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=TensorBoardLogger(folder, "logs"),
        plugins=[AtomicCheckpointIO(), *(cls() for cls in environment)],
        callbacks=[*fault_tolerance_callbacks(), *watching, best],
        max_epochs=1,
        val_check_interval=0.25,
        num_sanity_val_steps=-1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, data)


def assert_stopped(folder: Path, logs: list[str], message: str, step: int, validation_due: bool) -> None:
    assert message in logs[0]
    assert "Stopped" not in logs[1]
    (saved,) = folder.rglob("stopped.ckpt")
    checkpoint = torch.load(saved / META if saved.is_dir() else saved, weights_only=True)
    assert (checkpoint["global_step"], checkpoint[VALIDATION_DUE]) == (step, validation_due)
    assert find_corruption(saved) is None


@pytest.mark.parametrize("sigterm_in", [0, 1])
def test_sigterm_in_an_unequal_validation_ends_all_processes(
    sigterm_in: int, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """In the batch that both ranks have, and in the one that only the first has: then the validation is finished."""
    codes, logs = exit_codes(fit, tmp_path, shapes_checkpoint, "ddp", sigterm_in, timeout=TIMEOUT)
    assert codes == [0, 0], "\n".join(logs)
    first, second = (torch.load(tmp_path / f"val_batches-{rank}.pt") for rank in (0, 1))
    assert second == [(0, 0), (1, 0), (2, 0)]
    assert first == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)][: 5 + sigterm_in]
    assert_stopped(tmp_path, logs, "Stopped by SIGTERM after step 2. Resume with: unirl", 2, sigterm_in == 0)


class SlurmRanks(SLURMEnvironment):
    """Ranks of SLURM, in processes that were started with the variables of torchrun."""

    def __init__(self) -> None:
        for name, value in {
            "NTASKS": "WORLD_SIZE",
            "PROCID": "RANK",
            "LOCALID": "LOCAL_RANK",
            "NODEID": "GROUP_RANK",
        }.items():
            os.environ[f"SLURM_{name}"] = os.environ[value]
        os.environ |= {"SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "2"}
        super().__init__()


def test_sharded_processes_save_together_after_slurms_signal(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """Lightning's own handler saves in the middle of the step, on the rank that got the signal."""
    options = (shapes_checkpoint, "fsdp2", None, 1, (SlurmRanks,))
    codes, logs = exit_codes(fit, tmp_path, *options, timeout=TIMEOUT)
    assert codes == [0, 0], "\n".join(logs)
    assert_stopped(tmp_path, logs, "Stopped by SIGUSR1 after step 2. `scontrol requeue 1234` failed", 2, True)
