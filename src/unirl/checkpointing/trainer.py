"""Lightning's trainer, whose sharded checkpoints are whole or not there, too."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from typing_extensions import override

from unirl.checkpointing.finding import OLD
from unirl.checkpointing.sealing import sum_of, write_sums
from unirl.checkpointing.writing import part_of, sync_folder


class WholeTrainer(Trainer):
    """Saves a folder of shards beside its place, and moves it there when all processes are done."""

    @override
    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        if not saves_folders(self.strategy) or "://" in str(filepath):
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        path = Path(self.strategy.broadcast(filepath))
        part = part_of(path)
        if self.is_global_zero and part.exists():
            shutil.rmtree(part)
        self.strategy.barrier("unirl.part")
        super().save_checkpoint(part, weights_only, storage_options)
        self._seal(part)
        if self.is_global_zero:
            replace_folder(part, path)
        self.strategy.barrier("unirl.whole")

    def _seal(self, part: Path) -> None:
        """All processes read again what was written, some files each; the first one writes the checksums down."""
        self.strategy.barrier("unirl.written")
        files = sorted(path for path in part.iterdir() if path.is_file())
        own = {path.name: sum_of(path) for path in files[self.global_rank :: self.world_size]}
        everyone: list[dict[str, str]] = [own] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(everyone, own)
        if self.is_global_zero:
            write_sums(part, {name: value for sums in everyone for name, value in sums.items()})


def saves_folders(strategy: Strategy) -> bool:
    """Whether a strategy saves shards in a folder, rather than one file."""
    if isinstance(strategy, ModelParallelStrategy):
        return strategy._save_distributed_checkpoint
    return isinstance(strategy, FSDPStrategy) and strategy._state_dict_type == "sharded"


def replace_folder(new: Path, path: Path) -> None:
    """Bring a folder to the disk and give it its name; one of that name is replaced.

    Args:
        new: In the same folder as `path`.
        path: Its name.
    """
    for file in new.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    old = path.with_name(path.name + OLD)
    if path.exists():  # a folder cannot be renamed over another; killed in between, the old one is still found
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
