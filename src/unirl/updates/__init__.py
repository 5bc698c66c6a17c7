"""The `updates` plugin kind: its contract and what the framework ships."""

from unirl.updates.base import UpdateRule
from unirl.updates.reference import Reference

__all__ = ["Reference", "UpdateRule"]
