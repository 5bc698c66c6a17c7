"""Checkpoints that survive: written whole or not at all, checked before they are believed, found by `last`."""

from unirl.checkpointing.checking import fault
from unirl.checkpointing.files import CheckpointFiles
from unirl.checkpointing.finding import newest_whole, refused

__all__ = ["CheckpointFiles", "fault", "newest_whole", "refused"]
