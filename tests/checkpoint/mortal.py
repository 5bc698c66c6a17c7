"""Short runs in forked processes, which signals end in the middle of a step; and what is left of them."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from unirl.checkpoint import AtomicCheckpointIO
from unirl.checkpoint.io import AtomicTrainer
from unirl.checkpoint.sharded import META, index
from unirl.rewards.likelihood import Likelihood
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

BACKBONES = {"showo": Showo, "janus": Janus}
STEPS = 5


def forked(work: Callable[[], Any], log: Path) -> int | None:
    """How a process of its own ended: exit code, or minus the number of the signal; what it printed is in a file."""
    process = multiprocessing.get_context("fork").Process(target=_logged, args=(work, log))
    process.start()
    process.join(300)
    code = process.exitcode
    process.kill()
    return code


def _logged(work: Callable[[], Any], log: Path) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    work()


class Mortal(SelfImprovement):
    """Writes down what it draws, and sends itself a signal: after the backward pass of a batch, or in validation."""

    folder: Path
    ends_at: int | None = None
    ends_in_validation = False
    sent = signal.SIGKILL

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert self._rollout is not None
        name = f"drawn-{self.trainer.fit_loop.total_batch_idx}-{self.global_rank}.pt"
        torch.save(self._rollout.images.codes, self.folder / name)
        return loss

    def on_after_backward(self) -> None:
        super().on_after_backward()
        if self.trainer.fit_loop.total_batch_idx == self.ends_at:
            os.kill(os.getpid(), self.sent)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        if self.ends_in_validation:
            os.kill(os.getpid(), self.sent)
        return super().validation_step(batch, batch_idx)


class EachBatch(Checkpoint):
    """Saves after every batch, also between two whose gradients are added up."""

    def __init__(self, dirpath: Path) -> None:
        self.dirpath = dirpath

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.dirpath / f"{trainer.fit_loop.total_batch_idx}.ckpt")


def mortal(kind: str, checkpoint: Path, rule: str, folder: Path, **options: Any) -> Mortal:
    update = SFT(end_to_end=False, answers="all") if rule == "sft" else GRPO(beta=0.1, answer_beta=0.5)
    settings: dict[str, Any] = {"group_size": 2, "sampling": ImageSampling(steps=2), "lr": 1e-3, "accept": 0.0}
    settings |= {"answering": AnswerSampling(2), "diversity_prompts": 1} | options
    model = Mortal(BACKBONES[kind](str(checkpoint)), update, [Likelihood()], **settings)
    model.folder = folder
    return model


def fit(model: Mortal, saving: Checkpoint | None = None, ckpt: Path | None = None, **options: Any) -> Trainer:
    model.folder.mkdir(parents=True, exist_ok=True)
    steps = options.pop("steps_per_epoch", STEPS)
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=steps, num_val_prompts=4, val_batch_size=2)
    settings: dict[str, Any] = {"max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0} | options
    trainer = AtomicTrainer(
        accelerator="cpu",
        logger=TensorBoardLogger(model.folder, "logs"),
        plugins=[AtomicCheckpointIO()],
        callbacks=[*fault_tolerance_callbacks(), saving or EachBatch(model.folder / "checkpoints")],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(model, data, ckpt_path=None if ckpt is None else str(ckpt))
    return trainer


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """What was logged, by name and step, in all parts of a run."""
    found = []
    for part in sorted((folder / "logs").iterdir()):
        events = EventAccumulator(str(part))
        events.Reload()
        found += [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    return sorted(found)


def held(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; of a sharded one all tensors stand beside what Lightning keeps apart."""
    if not path.is_dir():
        return torch.load(path, weights_only=True)
    apart, found = torch.load(path / META, weights_only=True), {}
    for name, entry in index(path).state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            found[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.load(found, storage_reader=dcp.FileSystemReader(path))
    states = {name: tensor for name, tensor in found.items() if not name.startswith("state_dict.")}
    weights = {name: tensor for name, tensor in found.items() if name.startswith("state_dict.")}
    assert weights
    assert states
    return apart | {"state_dict": weights, "optimizer_states": states}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_run(whole: Path, parts: Path, last: int = STEPS - 1) -> None:
    """The final checkpoint, all drawings and all that was logged are those of a run that was not interrupted."""
    one, other = (held(f / "checkpoints" / f"{last}.ckpt") for f in (whole, parts))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(one[part], other[part]), part
    drawings = sorted(path.name for path in whole.glob("drawn-*"))
    assert drawings == sorted(path.name for path in parts.glob("drawn-*"))
    for name in drawings:
        assert torch.equal(torch.load(whole / name), torch.load(parts / name)), name
    assert scalars(parts) == scalars(whole)
