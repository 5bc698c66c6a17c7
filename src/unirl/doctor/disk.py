"""Can the log folder be written, and is there room for checkpoints?"""

import math
import shutil
import tempfile
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from unirl.doctor.findings import Finding, size


def check_disk(folder: Path, one: float = 0.0, kept: float = 0.0) -> list[Finding]:
    """Whether a folder can be written and has room. Nothing is left there.

    Args:
        folder: Where logs and checkpoints will be; it need not exist.
        one: Bytes of a checkpoint; 0 looks only whether it can be written.
        kept: How many are kept at once; infinite where all are.
    """
    here = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=here) as file:
            file.write(b"0")
            file.flush()
        free = shutil.disk_usage(here).free
    except OSError as error:
        text = f"{here} cannot be written ({error.strerror or error})"
        return [Finding("error", "disk", text, "give another --trainer.default_root_dir, or make room")]
    return [_room(here, free, one, kept)] if one else []


def log_folder(trainer: Trainer) -> Path:
    """Where a trainer will write.

    Args:
        trainer: Nothing of it has run.
    """
    return Path((trainer.log_dir if trainer.loggers else None) or trainer.default_root_dir)


def kept_at_once(trainer: Trainer) -> float:
    """How many checkpoints may be there at once, the one being written included; infinite where all are kept.

    Args:
        trainer: Whose callbacks save them.
    """
    count = 0.0
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            count += math.inf if callback.save_top_k == -1 else callback.save_top_k
            count += callback.save_last is True
    return count + 1 if count else 0.0


def _room(here: Path, free: int, one: float, kept: float) -> Finding:
    fit, each = math.floor(free / one), f"{size(one)} each"
    if math.isinf(kept):
        text = f"every checkpoint is kept, {each}; {size(free)} free at {here} hold {fit}"
        return Finding("warning" if fit else "error", "disk", text, "set save_top_k of ModelCheckpoint")
    text = f"{kept:.0f} checkpoints at once, {each}; {size(free)} are free at {here}"
    if one * kept <= free:
        return Finding("ok", "disk", text)
    return Finding("error", "disk", text, "make room, keep fewer (save_top_k), or give --trainer.default_root_dir")
