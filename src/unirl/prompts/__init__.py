"""The `prompts` plugin kind: its contract and what the framework ships."""

from unirl.prompts.base import Prompts

__all__ = ["Prompts"]
