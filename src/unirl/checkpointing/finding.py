"""Which checkpoint to go on from."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from unirl.checkpointing.checking import fault
from unirl.checkpointing.writing import PART

OLD = ".old"
"""Ends the name of a folder that is being replaced; a folder cannot be renamed over another."""


@dataclass
class Found:
    """The newest whole checkpoint, and what is newer and was skipped.

    Args:
        path: None where there is none.
        skipped: One line each: which, and why.
    """

    path: Path | None = None
    skipped: list[str] = field(default_factory=list)


def newest_whole(folders: Iterable[Path]) -> Found:
    """The newest checkpoint in some folders that is whole.

    Args:
        folders: Where to look, not below them.
    """
    paths = [path for folder in folders for path in folder.glob("*.ckpt*") if _is_candidate(path)]
    found = Found()
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        why = "half-written, the run was killed meanwhile" if path.suffix == PART else fault(path)
        if why is None:
            found.path = path
            break
        found.skipped.append(f"{path}: {why}")
    return found


def _is_candidate(path: Path) -> bool:
    return path.suffix in (".ckpt", PART, OLD) and path.exists()  # `save_last: link` may leave a link to nothing


def refused(path: Path, why: str) -> str:
    """What a user reads about a checkpoint that cannot be gone on from; names one that can.

    Args:
        path: Of the broken one.
        why: As `fault` says.
    """
    other = newest_whole([path.parent]).path
    go_on = f"the newest whole one beside it: --ckpt_path {other}" if other else "no whole one is beside it"
    return f"checkpoint {path} is refused: {why}; {go_on}"
