"""Update rules: how samples and scores become a loss."""

from unirl.updates.base import UpdateRule, warn_guidance_mismatch
from unirl.updates.batching import ScoringBatch, scoring_batch
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty, PolicyLoss
from unirl.updates.reference import Reference
from unirl.updates.sft import SFT

__all__ = [
    "GRPO",
    "SFT",
    "ImageScoring",
    "KLPenalty",
    "PolicyLoss",
    "Reference",
    "ScoringBatch",
    "UpdateRule",
    "scoring_batch",
    "warn_guidance_mismatch",
]
