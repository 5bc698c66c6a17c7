"""The `rewards` plugin kind: its contract and what the framework ships."""

from unirl.rewards.base import Reward

__all__ = ["Reward"]
