"""Short runs in forked processes that a signal ends in the middle of a step, and comparisons of what they leave."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.callbacks import fault_tolerance_callbacks
from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer
from unirl.checkpoint.sharded import META, read_metadata
from unirl.rewards.likelihood import Likelihood
from unirl.training import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.grpo import GRPO, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

BACKBONES = {"showo": Showo, "janus": Janus}
BATCHES = 5
AFTER_BATCHES = -1
"""In place of the index of a validation batch: when all batches are done, before their metrics are computed."""


def run_forked(function: Callable[[], Any], log: Path) -> int | None:
    """The exit code of a process that calls a function, negative for a signal. Its output is written to `log`."""
    process = multiprocessing.get_context("fork").Process(target=_run_logged, args=(function, log))
    process.start()
    process.join(300)
    code = process.exitcode
    process.kill()
    return code


def _run_logged(function: Callable[[], Any], log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    function()


class Interrupted(SelfImprovement):
    """Saves the codes of its images, and sends itself a signal after a backward pass or in validation."""

    folder: Path
    signal_batch: int | None = None
    signal_in_validation: int | None = None
    signal_to_send = signal.SIGKILL

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert self._current is not None
        name = f"codes-{self.trainer.fit_loop.total_batch_idx}-{self.global_rank}.pt"
        torch.save(self._current.images.codes, self.folder / name)
        return loss

    def on_after_backward(self) -> None:
        super().on_after_backward()
        if self.trainer.fit_loop.total_batch_idx == self.signal_batch:
            os.kill(os.getpid(), self.signal_to_send)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == self.signal_in_validation:
            os.kill(os.getpid(), self.signal_to_send)
        return super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        if self.signal_in_validation == AFTER_BATCHES:
            os.kill(os.getpid(), self.signal_to_send)
        super().on_validation_epoch_end()


class SaveEachStep(Checkpoint):
    """Saves a checkpoint after each optimizer step, under the index of its last batch."""

    def __init__(self, dirpath: Path) -> None:
        self.dirpath = dirpath

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.fit_loop.epoch_loop._should_accumulate():
            trainer.save_checkpoint(self.dirpath / f"{trainer.fit_loop.total_batch_idx}.ckpt")


def make_model(backbone: str, checkpoint: Path, rule: str, folder: Path, num_iterations: int = 1) -> Interrupted:
    grpo = GRPO(kl=KLPenalty(beta=0.1, answer_beta=0.5))
    model = Interrupted(
        BACKBONES[backbone](str(checkpoint)),
        SFT(end_to_end=False, answer_labels="prompt") if rule == "sft" else grpo,
        [Likelihood()],
        rollout=RolloutConfig(2, num_iterations, ImageSampling(steps=2), AnswerSampling(2), accept_threshold=0.0),
        evaluation=EvaluationConfig(num_diversity_prompts=1),
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
        exclude_frozen_parameters=backbone == "janus",
    )
    model.folder = folder
    return model


def fit(
    model: Interrupted,
    checkpoint_callback: Checkpoint | None = None,
    ckpt_path: Path | None = None,
    steps_per_epoch: int = BATCHES,
    sampler: Literal["uniform", "adaptive"] = "uniform",
    **options: Any,
) -> Trainer:
    model.folder.mkdir(parents=True, exist_ok=True)
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch, num_val_prompts=4, val_batch_size=2, sampler=sampler)
    settings: dict[str, Any] = {"max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0} | options
    saving = checkpoint_callback or SaveEachStep(model.folder / "checkpoints")
    trainer = AtomicTrainer(
        accelerator="cpu",
        logger=TensorBoardLogger(model.folder, "logs"),
        plugins=[AtomicCheckpointIO()],
        callbacks=[*fault_tolerance_callbacks(), saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(model, data, ckpt_path=None if ckpt_path is None else str(ckpt_path))
    return trainer


def logged_scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Tag, step and value of everything that was logged, over all versions of a run."""
    scalars = []
    for version in sorted((folder / "logs").iterdir()):
        events = EventAccumulator(str(version))
        events.Reload()
        scalars += [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    return sorted(scalars)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint file or a sharded checkpoint, with full tensors."""
    if not path.is_dir():
        return torch.load(path, weights_only=True)
    entries = read_metadata(path).state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(path))
    weights = {name: tensor for name, tensor in tensors.items() if name.startswith("state_dict.")}
    states = {name: tensor for name, tensor in tensors.items() if name not in weights}
    assert weights
    assert states
    return torch.load(path / META, weights_only=True) | {"state_dict": weights, "optimizer_states": states}


def is_equal(first: Any, second: Any) -> bool:
    """Whether two nested values are equal bit for bit."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(is_equal, first, second))
    return bool(first == second)


def assert_same_run(uninterrupted: Path, resumed: Path, last: int = BATCHES - 1) -> None:
    """The last checkpoint, all images and all logged scalars are equal."""
    first, second = (load_checkpoint(f / "checkpoints" / f"{last}.ckpt") for f in (uninterrupted, resumed))
    assert is_equal(first.get("PromptsDataModule"), second.get("PromptsDataModule"))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert is_equal(first[key], second[key]), key
    names = sorted(path.name for path in uninterrupted.glob("codes-*"))
    assert names == sorted(path.name for path in resumed.glob("codes-*"))
    for name in names:
        assert torch.equal(torch.load(uninterrupted / name), torch.load(resumed / name)), name
    assert logged_scalars(resumed) == logged_scalars(uninterrupted)
