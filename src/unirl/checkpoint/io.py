"""Atomic checkpoints: a file or folder gets its name when its last byte is on the disk.

`AtomicCheckpointIO` writes single files, `AtomicTrainer` (trainer.py) renames the folders that FSDP strategies write. A
save that is killed leaves `NAME.part`, which is never loaded; the checkpoint that had the name before is intact.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from typing_extensions import override

from unirl.checkpoint.integrity import TrailerChecksum, find_corruption
from unirl.checkpoint.resume import corrupt_message, partial_path, replaced_path
from unirl.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are complete or absent, and hold nothing but data.

    A failed save is a warning and training goes on. Older checkpoints are then kept until a save succeeds, even if
    there are more of them than `save_top_k`. Remote paths such as `s3://` are left to Lightning.

    Attributes:
        verified: A checkpoint that has been verified, such as by another rank, and is loaded without doing so again.
    """

    def __init__(self) -> None:
        self.verified: Path | None = None
        self._last_save_failed, self._warned_unsafe = False, False
        self._pending_removals: list[Path] = []

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_atomically(checkpoint, Path(path))
        except OSError as error:
            self._last_save_failed = True
            rank_zero_warn(
                f"no checkpoint was saved at step {checkpoint.get('global_step', '?')}: {error.strerror} ({path}). "
                "Training goes on, older checkpoints are kept, and the next save tries again"
            )
            return
        self._warn_unsafe(Path(path))
        self._last_save_failed = False
        for old in self._pending_removals:
            if old != Path(path):
                self.remove_checkpoint(old)
        self._pending_removals.clear()

    @override
    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        verified, self.verified = self.verified, None
        is_known = "://" in str(path) or Path(path) == verified
        if not is_known and (problem := find_corruption(Path(path))) is not None:
            raise UserError(corrupt_message(Path(path), problem))
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # without a trailer, a flipped bit may show only here
            problem = f"broken: {' '.join(str(error).split())[:120]}"
            raise UserError(corrupt_message(Path(path), problem)) from error

    @override
    def remove_checkpoint(self, path: Any) -> None:
        if self._last_save_failed:
            self._pending_removals.append(Path(path))
        elif os.path.islink(path):  # `save_last: link`; Lightning cannot remove a link to a folder
            os.unlink(path)
        else:
            super().remove_checkpoint(path)

    def _warn_unsafe(self, path: Path) -> None:
        """Warn when a checkpoint that cannot be loaded is saved, rather than when it is needed."""
        unsafe = [] if self._warned_unsafe else sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        if unsafe:
            self._warned_unsafe = True
            rank_zero_warn(
                f"{path} holds {', '.join(unsafe[:3])} and will not be loaded, because it could run code. The callback "
                "or module that saves it should save tensors and plain values, or call "
                "torch.serialization.add_safe_globals"
            )


def write_atomically(value: Any, path: Path) -> None:
    """`torch.save` to `NAME.part`, sync it to the disk, and rename it. The file ends with a checksum trailer.

    Args:
        value: As for `torch.save`.
        path: A local file; replaced if it exists.

    Raises:
        OSError: the disk is full or read-only. `NAME.part` is removed, and an existing file is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with partial.open("wb", buffering=0) as file:
            _save_with_trailer(value, file)
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def replace_folder(new: Path, path: Path) -> None:
    """Sync a folder to the disk and rename it. A folder that has the name is replaced.

    Args:
        new: The folder, with the same parent as `path`.
        path: Its new name.
    """
    for file in new.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    old = replaced_path(path)
    if path.is_symlink():  # `save_last: link`
        path.unlink()
    if path.exists():  # if the process is killed between the two renames, the old folder is still found
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    _sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


class _ChecksummedFile:
    """A file for `torch.save`: computes the trailer, and keeps the OSError that PyTorch's writer hides."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.checksum = file, TrailerChecksum()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest:  # a write may be partial: Linux writes at most 2 GB, and PyTorch ignores the return value
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = self.error or error
            raise
        self.checksum.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()


def _save_with_trailer(value: Any, file: IO[bytes]) -> None:
    checksummed = _ChecksummedFile(file)
    try:
        torch.save(value, checksummed)  # type: ignore[arg-type] # it needs `write` and `flush` only
        checksummed.write(checksummed.checksum.trailer())
    except Exception as error:
        if checksummed.error is not None:
            raise checksummed.error from error
        raise


def _sync_folder(folder: Path) -> None:
    """Sync a rename to the disk; a no-op where folders cannot be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
