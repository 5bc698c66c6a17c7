"""Finding the checkpoint to resume from."""

import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unirl.checkpoint.integrity import find_corruption
from unirl.errors import UserError

PARTIAL, REPLACED = ".part", ".old"
"""Suffixes of a checkpoint that is being written, and of a folder that is being replaced."""
DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),  # full
    *(errno.EROFS, errno.EACCES, errno.EPERM),  # not writable
    *(errno.EIO, errno.ESTALE),  # broken
}


def partial_path(path: Path) -> Path:
    """The name of a file or folder while it is written.

    Example:
        >>> partial_path(Path("last.ckpt")).name
        'last.ckpt.part'
    """
    return path.with_name(path.name + PARTIAL)


def replaced_path(path: Path) -> Path:
    """The name of a folder while another one takes its place; a folder cannot be renamed onto an existing one.

    Example:
        >>> replaced_path(Path("step=1.ckpt")).name
        'step=1.ckpt.old'
    """
    return path.with_name(path.name + REPLACED)


@dataclass
class CheckpointSearch:
    """Result of a search for the newest valid checkpoint.

    Args:
        path: The checkpoint; None if there is none.
        skipped: Newer checkpoints that are not valid: a line each, with the reason.
    """

    path: Path | None = None
    skipped: list[str] = field(default_factory=list)


def latest_valid(folders: Iterable[Path]) -> CheckpointSearch:
    """Find the newest valid checkpoint.

    Args:
        folders: Where to look, not recursively.
    """
    paths = [path for folder in folders for path in folder.glob("*.ckpt*") if _is_candidate(path)]
    search = CheckpointSearch()
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        interrupted = "incomplete, the run was killed while it was written"
        problem = interrupted if path.suffix == PARTIAL else find_corruption(path)
        if problem is None:
            search.path = path
            break
        search.skipped.append(f"{path}: {problem}")
    return search


def _is_candidate(path: Path) -> bool:
    return path.suffix in (".ckpt", PARTIAL, REPLACED) and path.exists()  # `save_last: link` may leave a dead link


def corrupt_message(path: Path, problem: str) -> str:
    """The message about a checkpoint that cannot be loaded; names the newest valid one in its folder.

    Args:
        path: Of the corrupt checkpoint.
        problem: What `find_corruption` returned.
    """
    other = latest_valid([path.parent]).path
    advice = f"the newest valid one in its folder: --ckpt_path {other}" if other else "its folder has no valid one"
    return f"checkpoint {path} is refused: {problem}; {advice}"


def resolve_ckpt_path(path: str, options: Any) -> str | None:
    """The checkpoint that `--ckpt_path` names.

    Args:
        path: A file, the folder of a sharded checkpoint, a remote path, "hpc", or "last" for the newest valid
            checkpoint of all runs with the same name.
        options: Parsed options of the subcommand.

    Returns:
        The path; None if "last" finds no checkpoint, so that the same command starts and resumes a run.

    Raises:
        UserError: the checkpoint is missing or corrupt.
    """
    if path == "last":
        return _resolve_last(_checkpoint_folders(options))
    if path == "best":
        raise UserError(
            "--ckpt_path best: only the process that trained knows which one was best; give its path, or 'last'"
        )
    if path == "hpc" or "://" in path:
        return path
    if not Path(path).exists():
        raise UserError(f"--ckpt_path: no checkpoint at {path!r}; give a .ckpt file, a sharded folder, or 'last'")
    if (problem := find_corruption(Path(path))) is not None:
        raise UserError(corrupt_message(Path(path), problem))
    return path


def _resolve_last(folders: list[Path]) -> str | None:
    search = latest_valid(folders)
    for line in search.skipped:
        _print(f"skipped {line}")
    if search.path is not None:
        _print(f"resuming from {search.path}")
        return str(search.path)
    if any(not line.partition(": ")[0].endswith(PARTIAL) for line in search.skipped):
        raise UserError(f"--ckpt_path last: no checkpoint is valid; the newest: {search.skipped[0]}")
    _print("--ckpt_path last: no checkpoint yet, the run starts from the beginning")
    return None


def _checkpoint_folders(options: Any) -> list[Path]:
    run = Path(options.trainer.default_root_dir) / options.name
    folders = sorted(run.glob("version_*/checkpoints"))
    for callback in options.trainer.callbacks or []:
        dirpath = getattr(getattr(callback, "init_args", None), "dirpath", None)
        folders += [Path(dirpath)] if dirpath else []
    return list(dict.fromkeys(folders))


@rank_zero_only
def _print(text: str) -> None:
    print(f"unirl: {text}", file=sys.stderr)


def is_disk_error(error: OSError) -> bool:
    """Whether a write failed because the disk is full, not writable or broken."""
    return error.errno in DISK_ERRORS
