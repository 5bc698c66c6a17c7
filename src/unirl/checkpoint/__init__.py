"""Checkpoints that survive: written whole or not at all, checked before they are believed, found by `last`."""

from unirl.checkpoint.integrity import find_corruption
from unirl.checkpoint.io import AtomicCheckpointIO
from unirl.checkpoint.resume import corrupt_message, latest_valid

__all__ = ["AtomicCheckpointIO", "corrupt_message", "find_corruption", "latest_valid"]
