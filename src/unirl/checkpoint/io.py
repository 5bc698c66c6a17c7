"""A file is there whole, or it is not there: it gets its name when the last byte is on the disk."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from typing_extensions import override

from unirl.checkpoint.integrity import PART, Seal, find_corruption, sum_of, write_sums
from unirl.checkpoint.resume import OLD, corrupt_message
from unirl.errors import UserError


class _Watched:
    """A file that remembers why a write failed: PyTorch's writer tells only that it did."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.error, self.seal = file, None, Seal()

    error: OSError | None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:  # Linux writes 2 GB at once, and a disk that fills up less; PyTorch does not look
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = self.error or error
            raise
        self.seal.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def partial_path(path: Path) -> Path:
    """Where a file is while it is being written.

    Example:
        >>> partial_path(Path("last.ckpt")).name
        'last.ckpt.part'
    """
    return path.with_name(path.name + PART)


def write_atomically(value: Any, path: Path) -> None:
    """`torch.save` to a temporary name beside it, to the disk, and only then to its name; the old one stays till then.

    It ends with a seal, a checksum of all of it.

    Args:
        value: As for `torch.save`.
        path: A local file.

    Raises:
        OSError: the disk is full, or read-only; the temporary file is gone then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = partial_path(path)
    try:
        with part.open("wb", buffering=0) as file:
            _save(value, file)
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _save(value: Any, file: IO[bytes]) -> None:
    watched = _Watched(file)
    try:
        torch.save(value, watched)  # type: ignore[arg-type] # writes and flushes, which is all that it does
        watched.write(watched.seal.close())
    except Exception as error:
        if watched.error is not None:
            raise watched.error from error
        raise


def sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; a no-op where folders cannot be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Whole files or none, and nothing but data. A save that fails is told, and the run goes on.

    Where a save failed, older checkpoints are kept, though there may be more of them than was asked for, till one
    succeeds. Addresses such as `s3://` are left to Lightning.
    """

    def __init__(self) -> None:
        self._failed, self._warned, self._superseded = False, False, list[Path]()

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_atomically(checkpoint, Path(path))
        except OSError as error:
            self._failed = True
            rank_zero_warn(
                f"no checkpoint was saved at step {checkpoint.get('global_step', '?')}: {error.strerror} ({path}). "
                "The run goes on, older checkpoints are kept, and the next save tries again"
            )
            return
        self._warn_of_code(Path(path))
        self._failed = False
        for old in self._superseded:
            if old != Path(path):
                super().remove_checkpoint(old)
        self._superseded.clear()

    @override
    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if "://" not in str(path) and (why := find_corruption(Path(path))) is not None:
            raise UserError(corrupt_message(Path(path), why))
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # of another writer, without a seal: a flipped bit may show only here
            raise UserError(corrupt_message(Path(path), f"broken: {' '.join(str(error).split())[:120]}")) from error

    @override
    def remove_checkpoint(self, path: Any) -> None:
        if self._failed:
            self._superseded.append(Path(path))
        else:
            super().remove_checkpoint(path)

    def _warn_of_code(self, path: Path) -> None:
        # Told when it is saved, and not days later, when it is needed.
        unsafe = [] if self._warned else sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        if unsafe:
            self._warned = True
            rank_zero_warn(
                f"{path} holds {', '.join(unsafe[:3])}, which no run will load, for it could run code. Whoever puts it "
                "there should save tensors and plain values, or call torch.serialization.add_safe_globals"
            )


class AtomicTrainer(Trainer):
    """Saves a folder of shards beside its place, and moves it there when all processes are done."""

    @override
    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        if not saves_folders(self.strategy) or "://" in str(filepath):
            super().save_checkpoint(filepath, weights_only, storage_options)
            return
        path = Path(self.strategy.broadcast(filepath))
        part = partial_path(path)
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
