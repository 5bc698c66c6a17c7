"""Telling checkpoints of models apart by a sample of their bytes, wherever they are on the disk."""

import hashlib
from pathlib import Path

from unirl.backbones.checkpoints import locate_local, weight_files
from unirl.backbones.hub import cached_folder
from unirl.errors import UserError

STRIDE, SAMPLE = 1 << 22, 1 << 12
"""4 kB of every 4 MB of a file are read: of a matrix that large, some rows always."""
WHOLE = 1 << 24
"""Files up to this size, 16 MB, are read whole."""


def fingerprint(path_or_id: str, revision: str | None = None) -> str | None:
    """A hash that a copy of a checkpoint shares, and a checkpoint with other weights does not.

    Weights in folders inside the checkpoint, as of an image tokenizer, do not count.

    Args:
        path_or_id: A local folder, `package:folder`, or a hub id.
        revision: Branch, tag or commit of the hub's repository. None takes its main branch.

    Returns:
        16 hexadecimal digits; None where the checkpoint is not on this machine, or has no weights.
    """
    try:
        folder = locate_local(path_or_id) or cached_folder(path_or_id, revision)
        files = [] if folder is None else [folder / "config.json", *weight_files(folder)]
        sha256 = hashlib.sha256()
        for file in files:
            _update(sha256, file)
    except (UserError, OSError):  # building the model says what is wrong with it
        return None
    return sha256.hexdigest()[:16] if files else None


def _update(sha256: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    sha256.update(f"{path.name} {size}\n".encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            sha256.update(file.read())
            return
        for start in range(0, size, STRIDE):
            file.seek(start)
            sha256.update(file.read(SAMPLE))
