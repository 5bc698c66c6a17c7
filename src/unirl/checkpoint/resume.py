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
SUFFIXES = (".ckpt", PARTIAL, REPLACED)
JOB_FILE = "slurm_job_id"
"""File in the folder of a run: the SLURM job that the run belongs to."""
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


def latest_valid(folders: Iterable[Path], corrupt: Path | None = None) -> CheckpointSearch:
    """Find the newest valid checkpoint.

    Args:
        folders: Where to look, not recursively.
        corrupt: A checkpoint that is known to be corrupt, and is not read again.
    """
    search = CheckpointSearch()
    known = None if corrupt is None else corrupt.resolve()
    paths = [path for path in _candidates(folders) if path.resolve() != known]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        interrupted = "incomplete, the run was killed while it was written"
        problem = interrupted if path.suffix == PARTIAL else find_corruption(path)
        if problem is None:
            search.path = path
            break
        search.skipped.append(f"{path}: {problem}")
    return search


def _candidates(folders: Iterable[Path]) -> list[Path]:
    """Checkpoints, each once: `last.ckpt` may be a link to another one, or to one that is gone (`save_last: link`)."""
    found = [path for folder in folders for path in folder.glob("*.ckpt*") if path.suffix in SUFFIXES and path.exists()]
    files = {path for path in found if not path.is_symlink()}
    targets = {path.resolve() for path in files}
    return [path for path in found if path in files or path.resolve() not in targets]


def corrupt_message(path: Path, problem: str, option: str = "--ckpt_path") -> str:
    """The message about a checkpoint that cannot be loaded; names the newest valid one in its folder.

    Args:
        path: Of the corrupt checkpoint.
        problem: What `find_corruption` returned.
        option: The option of the command that takes a checkpoint.
    """
    return f"checkpoint {path} is refused: {problem}; {_newest_beside(path, option)}"


def missing_message(path: Path, option: str = "--ckpt_path") -> str | None:
    """The message about a checkpoint that does not exist; None if it does.

    Args:
        path: A file, the folder of a sharded checkpoint, or a link to one of them.
        option: The option of the command that takes a checkpoint.
    """
    if path.exists():
        return None
    if path.is_symlink():
        return f"{option}: {str(path)!r} links to {path.readlink()}, which is gone; {_newest_beside(path, option)}"
    return f"{option}: no checkpoint at {str(path)!r}; give a .ckpt file, or the folder of a sharded checkpoint"


def _newest_beside(path: Path, option: str) -> str:
    other = latest_valid([path.parent], path).path
    return f"the newest valid one in its folder: {option} {other}" if other else "its folder has no valid one"


def check_ckpt_path(path: str) -> None:
    """Refuse a value of `--ckpt_path` that names nothing, before anything is built. The checkpoint is not read.

    Args:
        path: A file, the folder of a sharded checkpoint, a remote path, or "hpc".

    Raises:
        UserError: the checkpoint is missing.
    """
    if path == "best":
        raise UserError(
            "--ckpt_path best: only the process that trained knows which one was best; give its path, or 'last'"
        )
    if path == "hpc" or "://" in path or (message := missing_message(Path(path))) is None:
        return
    raise UserError(message if Path(path).is_symlink() else f"{message}, or 'last'")


def checkpoint_folders(options: Any, job_id: str | None = None) -> list[Path]:
    """The folders in which runs with the same name save checkpoints.

    Args:
        options: Parsed options of the subcommand.
        job_id: Only runs of this SLURM job; none if it has no run yet.
    """
    run = Path(options.trainer.default_root_dir) / options.name
    folders = sorted(run.glob("version_*/checkpoints"))
    if job_id is not None:
        folders = [folder for folder in folders if _job_of(folder.parent) == job_id]
        if not folders:
            return []
    for callback in options.trainer.callbacks or []:
        dirpath = getattr(getattr(callback, "init_args", None), "dirpath", None)
        folders += [Path(dirpath)] if dirpath else []
    return list(dict.fromkeys(folders))


def _job_of(run: Path) -> str | None:
    return (run / JOB_FILE).read_text(encoding="utf-8") if (run / JOB_FILE).is_file() else None


def resolve_last(folders: Iterable[Path]) -> tuple[str | None, str | None]:
    """The newest valid checkpoint, which `--ckpt_path last` means.

    Args:
        folders: Where to look.

    Returns:
        The path, None where there is no checkpoint, so that the same command starts and resumes a run; and why the run
        must not start, where there are checkpoints and none is valid.
    """
    search = latest_valid(folders)
    for line in search.skipped:
        _print(f"skipped {line}")
    if search.path is not None:
        _print(f"resuming from {search.path}")
        return str(search.path), None
    if any(not line.partition(": ")[0].endswith(PARTIAL) for line in search.skipped):
        return None, f"--ckpt_path last: no checkpoint is valid; the newest: {search.skipped[0]}"
    _print("--ckpt_path last: no checkpoint yet, the run starts from the beginning")
    return None, None


@rank_zero_only
def _print(text: str) -> None:
    print(f"unirl: {text}", file=sys.stderr)


def is_disk_error(error: OSError) -> bool:
    """Whether a write failed because the disk is full, not writable or broken."""
    return error.errno in DISK_ERRORS
