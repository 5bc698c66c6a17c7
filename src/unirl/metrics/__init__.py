"""What evaluation measures, as torchmetrics: correct with several processes, one value for each category."""

from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.completions import ClippedRatio
from unirl.metrics.consistency import Consistency, is_correct_answer
from unirl.metrics.diversity import GroupDiversity, TimmFeatures
from unirl.metrics.self_reward import SelfRewardAccuracy

__all__ = [
    "AccuracyByCategory",
    "ClippedRatio",
    "Consistency",
    "GroupDiversity",
    "SelfRewardAccuracy",
    "TimmFeatures",
    "is_correct_answer",
]
