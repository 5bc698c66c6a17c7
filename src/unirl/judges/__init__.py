"""The `judges` plugin kind: its contract and what the framework ships."""

from unirl.judges.base import Judge

__all__ = ["Judge"]
