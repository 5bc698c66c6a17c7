"""The `updates` plugin kind: its contract and what the framework ships."""

from unirl.updates.base import UpdateRule

__all__ = ["UpdateRule"]
