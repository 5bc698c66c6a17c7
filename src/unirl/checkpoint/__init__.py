"""Checkpoints that survive: written whole or not at all, checked before they are believed, found by `last`."""

from unirl.checkpoint.integrity import fault
from unirl.checkpoint.io import CheckpointFiles
from unirl.checkpoint.resume import newest_whole, refused

__all__ = ["CheckpointFiles", "fault", "newest_whole", "refused"]
