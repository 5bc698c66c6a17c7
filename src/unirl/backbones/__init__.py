"""The `backbones` plugin kind: its contract and what the framework ships."""

from unirl.backbones.base import Backbone

__all__ = ["Backbone"]
