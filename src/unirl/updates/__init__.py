"""Update rules: how samples and scores become a loss."""

from unirl.updates.answer_labels import AnswerLabeler, LabelSource, PosteriorLabels, label_loss
from unirl.updates.base import UpdateRule, warn_guidance_mismatch
from unirl.updates.batching import ScoringBatch, scoring_batch
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty, PolicyLoss
from unirl.updates.reference import Reference
from unirl.updates.sft import SFT

__all__ = [
    "GRPO",
    "SFT",
    "AnswerLabeler",
    "ImageScoring",
    "KLPenalty",
    "LabelSource",
    "PolicyLoss",
    "PosteriorLabels",
    "Reference",
    "ScoringBatch",
    "UpdateRule",
    "label_loss",
    "scoring_batch",
    "warn_guidance_mismatch",
]
