"""Checkpoints: written atomically, verified before they are loaded, resumed with `--ckpt_path last`, exported."""

from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.io import AtomicCheckpointIO
from unirl.checkpoint.resume import corrupt_message, latest_valid
from unirl.checkpoint.trainer import AtomicTrainer

__all__ = ["AtomicCheckpointIO", "AtomicTrainer", "corrupt_message", "find_corruption", "latest_valid"]
