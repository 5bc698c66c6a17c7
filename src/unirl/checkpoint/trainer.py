"""The Trainer that saves sharded checkpoints atomically, and verifies a checkpoint once before it is loaded."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from unirl.checkpoint.integrity import find_corruption, sha256_of, write_checksums
from unirl.checkpoint.io import AtomicCheckpointIO, replace_folder
from unirl.checkpoint.resume import corrupt_message, partial_path, resolve_last
from unirl.checkpoint.run_folder import RunFolder
from unirl.checkpoint.weights import check_strategy, check_weights, read_rest
from unirl.errors import UserError


class AtomicTrainer(Trainer):
    """A Trainer whose sharded checkpoints are written to `NAME.part` and renamed when all ranks are done.

    A checkpoint is verified before it is loaded: rank 0 reads it once, and all ranks end with the same message if it is
    corrupt.

    Attributes:
        resume_folders: Resume from the newest valid checkpoint in these folders rather than from `ckpt_path`.
        run_folder: The folder of the run, which is then `log_dir` whatever logs; None leaves that to the loggers.
    """

    resume_folders: Sequence[Path] | None = None
    run_folder: RunFolder | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._checkpoint_connector = _VerifyingConnector(self)

    @property
    @override
    def log_dir(self) -> str | None:
        """The folder of the run. Collective: read it on every rank."""
        return super().log_dir if self.run_folder is None else str(self.run_folder.take(self))

    @override
    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        if not saves_sharded(self.strategy) or "://" in str(filepath):
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        path = Path(self.strategy.broadcast(filepath))
        partial = partial_path(path)
        if self.is_global_zero and partial.exists():
            shutil.rmtree(partial)
        self.strategy.barrier("unirl.before_save")
        super().save_checkpoint(partial, weights_only, storage_options)
        self._write_checksums(partial)
        if self.is_global_zero:
            replace_folder(partial, path)
        self.strategy.barrier("unirl.after_save")

    def _write_checksums(self, folder: Path) -> None:
        """Each rank hashes a share of the files as they are on the disk; rank 0 writes `SHA256SUMS`."""
        self.strategy.barrier("unirl.after_write")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        local = {path.name: sha256_of(path) for path in files[self.global_rank :: self.world_size]}
        gathered: list[dict[str, str]] = [local] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(gathered, local)
        if self.is_global_zero:
            write_checksums(folder, {name: value for checksums in gathered for name, value in checksums.items()})


def saves_sharded(strategy: Strategy) -> bool:
    """Whether a strategy saves a folder of shards rather than one file."""
    if isinstance(strategy, ModelParallelStrategy):
        return strategy._save_distributed_checkpoint
    return isinstance(strategy, FSDPStrategy) and strategy._state_dict_type == "sharded"


class _VerifyingConnector(_CheckpointConnector):
    """Chooses and verifies the checkpoint on rank 0, when all ranks are there and none has read it."""

    trainer: AtomicTrainer

    @override
    def resume_start(self, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        strategy = self.trainer.strategy
        found = self._find(checkpoint_path) if self.trainer.is_global_zero else (None, None)
        path, problem = strategy.broadcast(found)
        if problem is None and path is not None:
            problem = strategy.broadcast(self._find_mismatch(path) if self.trainer.is_global_zero else None)
        if problem is not None:
            raise UserError(problem)
        if path is not None:
            self._ckpt_path = path  # what the trainer says as its `ckpt_path`
            if isinstance(strategy.checkpoint_io, AtomicCheckpointIO):
                strategy.checkpoint_io.verified = Path(path)
        super().resume_start(path, weights_only)

    def _find(self, checkpoint_path: Any) -> tuple[str | None, str | None]:
        """The checkpoint to load, None for none, and why it cannot be loaded."""
        if self.trainer.resume_folders is not None:
            return resolve_last(self.trainer.resume_folders, may_start=self.trainer.state.fn == TrainerFn.FITTING)
        path = str(checkpoint_path) if checkpoint_path else None
        if path is None or "://" in path or (problem := find_corruption(Path(path))) is None:
            return path, None
        return path, corrupt_message(Path(path), problem)

    def _find_mismatch(self, path: str) -> str | None:
        """Why a checkpoint does not belong to this run.

        The strategy loads shards, and fails where some are missing, before the module sees the checkpoint.
        """
        module: Any = self.trainer.lightning_module
        checkpoint = None if "://" in path else read_rest(Path(path))
        if checkpoint is None:
            return None
        try:
            check_strategy(Path(path), self.trainer.strategy)
            ours, training = hasattr(module, "check_checkpoint"), self.trainer.state.fn == TrainerFn.FITTING
            if ours:
                module.check_checkpoint(checkpoint, path)
            if module.strict_loading and not isinstance(self.trainer.strategy, FSDPStrategy):  # it renames parameters
                check_weights(Path(path), checkpoint, module, ours and training)
        except UserError as error:
            return str(error)
        return None
