"""Finding the checkpoint to resume from."""

import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.run_folder import version_of
from unirl.checkpoint.sharded import META, is_sharded_checkpoint
from unirl.errors import UserError

PARTIAL, REPLACED = ".part", ".old"
"""Suffixes of a checkpoint that is being written, and of a folder that is being replaced."""
SUFFIXES = (".ckpt", PARTIAL, REPLACED)
RUN = "run"
"""Checkpoint key: the name of the folder of the run that saved it, `version_N`."""
JOB_FILE = "slurm_job_id"
"""File in the folder of a run: the SLURM job that the run belongs to."""
CONFIG = "config.json"
"""File in the folder of a model in its public format."""
START_FROM = "--model.backbone.init_args.checkpoint"
"""The option that takes such a folder."""
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
        skipped: Newer checkpoints that are not valid, the newest first: a line each, with the reason.
    """

    path: Path | None = None
    skipped: list[str] = field(default_factory=list)


def latest_valid(folders: Iterable[Path], corrupt: Path | None = None) -> CheckpointSearch:
    """Find the newest valid checkpoint: of the last run that saved one, that of the highest step.

    The last run is the one with the highest version. Times of files, which copying changes, decide only where versions
    and steps are equal or unknown.

    Args:
        folders: Where to look, not recursively.
        corrupt: A checkpoint that is known to be corrupt, and is not read again.
    """
    search = CheckpointSearch()
    known = None if corrupt is None else corrupt.resolve()
    paths = [path for path in _candidates(folders) if path.resolve() != known]
    progress = {path: _progress(path) for path in paths}
    unreadable = sorted([path for path, found in progress.items() if found is None], key=_time, reverse=True)
    readable = {path: found for path, found in progress.items() if found is not None}
    for path in sorted(readable, key=lambda path: (*readable[path], _time(path)), reverse=True):
        problem = find_corruption(path)
        if problem is None:
            search.path = path
            break
        search.skipped.append(f"{path}: {problem}")
    newer = [path for path in unreadable if search.path is None or _time(path) > _time(search.path)]
    search.skipped = [f"{path}: {_why_unreadable(path)}" for path in newer] + search.skipped
    return search


def latest_readable(folders: Iterable[Path]) -> Path | None:
    """What `latest_valid` finds, if it is valid: no checkpoint is read whole.

    Args:
        folders: Where to look, not recursively.
    """
    progress = {path: found for path in _candidates(folders) if (found := _progress(path)) is not None}
    return max(progress, key=lambda path: (*progress[path], _time(path)), default=None)


def _progress(path: Path) -> tuple[int, int] | None:
    """Version of the run that saved a checkpoint, and its step; None if it cannot be read."""
    if path.suffix == PARTIAL:
        return None
    try:
        saved = torch.load(path / META if path.is_dir() else path, "cpu", weights_only=True, mmap=True)
        run = path.parent.parent.name if path.parent.name == "checkpoints" else ""
        return version_of(run if version_of(run) >= 0 else str(saved.get(RUN))), int(saved.get("global_step", -1))
    except Exception:  # a damaged file can fail in any way; `find_corruption` says what is wrong
        return None


def _why_unreadable(path: Path) -> str:
    if path.suffix == PARTIAL:
        return "incomplete, the run was killed while it was written"
    return find_corruption(path) or "not a checkpoint of a run"


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


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
    if path == "hpc" or "://" in path:
        return
    if message := missing_message(Path(path)):
        or_last = (
            "" if Path(path).is_symlink() else f", or 'last'; a model of the hub or a package: {START_FROM} {path}"
        )
        raise UserError(message + or_last)
    if message := no_checkpoint_message(Path(path)):
        raise UserError(message)


def no_checkpoint_message(path: Path, option: str = "--ckpt_path") -> str | None:
    """The message about a file or folder that is something else than a checkpoint; None if it may be one.

    Args:
        path: It exists.
        option: The option of the command that takes a checkpoint.
    """
    folder = path if path.is_dir() else path.parent
    is_file = path.is_file() and path.suffix in (".safetensors", ".bin", ".json", ".yaml", ".yml")
    if (path.is_dir() and (is_sharded_checkpoint(path) or path.suffix in SUFFIXES)) or (path.is_file() and not is_file):
        return None  # an incomplete folder of shards is refused when it is verified
    if (folder / CONFIG).is_file():
        start = f"to start from it: {START_FROM} {folder} without {option}"
        advice = start if option == "--ckpt_path" else "it needs no export"
        return f"{option}: {str(path)!r} is a model in its public format, not a checkpoint of a run; {advice}"
    below = [folder, folder / "checkpoints", *folder.glob("*/checkpoints")]
    newest = latest_readable(below)
    advice = f"its newest checkpoint: {option} {newest}" if newest else "it has no checkpoint"
    what = "folder" if path.is_dir() else "file"
    return f"{option}: {str(path)!r} is a {what}, not a checkpoint of a run; {advice}"


def checkpoint_folders(options: Any, job_id: str | None = None) -> list[Path]:
    """The folders in which runs with the same name have saved checkpoints, also under other names than `version_N`.

    Args:
        options: Parsed options of the subcommand.
        job_id: Only runs of this SLURM job; none if it has no run yet.

    Raises:
        UserError: the folder of all runs is remote, where it cannot be searched.
    """
    if "://" in options.trainer.default_root_dir:
        where = f"trainer.default_root_dir {options.trainer.default_root_dir!r} cannot be searched"
        raise UserError(f"--ckpt_path last: {where}; give the path of a checkpoint")
    run = Path(options.trainer.default_root_dir).expanduser() / options.name
    folders = sorted(run.glob("*/checkpoints"))
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


def resolve_last(folders: Iterable[Path], may_start: bool = True) -> tuple[str | None, str | None]:
    """The newest valid checkpoint, which `--ckpt_path last` means.

    Args:
        folders: Where to look.
        may_start: Whether a run without a checkpoint starts from the beginning. An evaluation needs one.

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
    if not may_start:
        return None, "--ckpt_path last: there is no checkpoint to evaluate; give its path, or the --name of its run"
    _print("--ckpt_path last: no checkpoint yet, the run starts from the beginning")
    return None, None


@rank_zero_only
def _print(text: str) -> None:
    print(f"unirl: {text}", file=sys.stderr)


def is_disk_error(error: OSError) -> bool:
    """Whether a write failed because the disk is full, not writable or broken."""
    return error.errno in DISK_ERRORS
