"""A file is there whole, or it is not there: it gets its name when the last byte is on the disk."""

import os
from pathlib import Path
from typing import IO, Any

import torch

from unirl.checkpointing.sealing import Seal

PART = ".part"
"""Ends the name of what is being written."""


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


def part_of(path: Path) -> Path:
    """Where a file is while it is being written.

    Example:
        >>> part_of(Path("last.ckpt")).name
        'last.ckpt.part'
    """
    return path.with_name(path.name + PART)


def write_whole(value: Any, path: Path) -> None:
    """`torch.save` to a temporary name beside it, to the disk, and only then to its name; the old one stays till then.

    It ends with a seal, a checksum of all of it.

    Args:
        value: As for `torch.save`.
        path: A local file.

    Raises:
        OSError: the disk is full, or read-only; the temporary file is gone then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
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
