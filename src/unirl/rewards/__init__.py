"""The `rewards` plugin kind: its contract and what the framework ships."""

from unirl.rewards.base import Reward
from unirl.rewards.pretrained import PretrainedReward

__all__ = ["PretrainedReward", "Reward"]
