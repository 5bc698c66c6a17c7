"""The `rewards` plugin kind: its contract, the rewards that are shipped, and the scoring of samples."""

from unirl.rewards.attribute import Attribute
from unirl.rewards.base import Reward, reaches
from unirl.rewards.caption import CaptionReward
from unirl.rewards.clip import CLIP
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.rewards.oracle import Oracle
from unirl.rewards.pretrained import PretrainedReward
from unirl.rewards.questions import Questions
from unirl.rewards.scoring import score

__all__ = [
    "CLIP",
    "Attribute",
    "CaptionReward",
    "Keyword",
    "Likelihood",
    "Oracle",
    "PretrainedReward",
    "Questions",
    "Reward",
    "reaches",
    "score",
]
