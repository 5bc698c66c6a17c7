"""Which checkpoint to go on from."""

import errno
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unirl.checkpoint.integrity import PART, find_corruption
from unirl.errors import UserError

OLD = ".old"
"""Ends the name of a folder that is being replaced; a folder cannot be renamed over another."""


@dataclass
class CheckpointSearch:
    """The newest whole checkpoint, and what is newer and was skipped.

    Args:
        path: None where there is none.
        skipped: One line each: which, and why.
    """

    path: Path | None = None
    skipped: list[str] = field(default_factory=list)


def latest_valid(folders: Iterable[Path]) -> CheckpointSearch:
    """The newest checkpoint in some folders that is whole.

    Args:
        folders: Where to look, not below them.
    """
    paths = [path for folder in folders for path in folder.glob("*.ckpt*") if _is_candidate(path)]
    found = CheckpointSearch()
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        why = "half-written, the run was killed meanwhile" if path.suffix == PART else find_corruption(path)
        if why is None:
            found.path = path
            break
        found.skipped.append(f"{path}: {why}")
    return found


def _is_candidate(path: Path) -> bool:
    return path.suffix in (".ckpt", PART, OLD) and path.exists()  # `save_last: link` may leave a link to nothing


def corrupt_message(path: Path, why: str) -> str:
    """What a user reads about a checkpoint that cannot be gone on from; names one that can.

    Args:
        path: Of the broken one.
        why: As `fault` says.
    """
    other = latest_valid([path.parent]).path
    go_on = f"the newest whole one beside it: --ckpt_path {other}" if other else "no whole one is beside it"
    return f"checkpoint {path} is refused: {why}; {go_on}"


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ESTALE}


def checkpoint_of(path: str, options: Any) -> str | None:
    """The checkpoint to go on from.

    Args:
        path: As given: a file, a sharded folder, an address, "hpc", or "last" for the newest whole one of all
            runs of this name.
        options: Of the subcommand.

    Raises:
        UserError: it is not there, or broken.
    """
    if path == "last":
        return _last(_folders(options))
    if path == "best":
        raise UserError(
            "--ckpt_path best: only the process that trained knows which one was best; give its path, or 'last'"
        )
    if path == "hpc" or "://" in path:
        return path
    if not Path(path).exists():
        raise UserError(f"--ckpt_path: no checkpoint at {path!r}; give a .ckpt file, a sharded folder, or 'last'")
    if (why := find_corruption(Path(path))) is not None:
        raise UserError(corrupt_message(Path(path), why))
    return path


def _last(folders: list[Path]) -> str | None:
    found = latest_valid(folders)
    for line in found.skipped:
        _say(f"skipped {line}")
    if found.path is not None:
        _say(f"going on from {found.path}")
        return str(found.path)
    if any(not line.partition(": ")[0].endswith(".part") for line in found.skipped):
        raise UserError(f"--ckpt_path last: no checkpoint is whole; the newest: {found.skipped[0]}")
    _say("--ckpt_path last: no checkpoint yet, the run starts at its beginning")  # so that one job script does for all
    return None


def _folders(options: Any) -> list[Path]:
    run = Path(options.trainer.default_root_dir) / options.name
    folders = sorted(run.glob("version_*/checkpoints"))
    for callback in options.trainer.callbacks or []:
        given = getattr(getattr(callback, "init_args", None), "dirpath", None)
        folders += [Path(given)] if given else []
    return list(dict.fromkeys(folders))


@rank_zero_only
def _say(text: str) -> None:
    print(f"unirl: {text}", file=sys.stderr)


def out_of_disk(error: OSError) -> bool:
    """Whether a write failed for what the disk is: full, read-only, broken, or not ours."""
    return error.errno in DISK
