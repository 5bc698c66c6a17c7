"""Conformance classes that a plugin author derives from; they need pytest (the extra `test`)."""

from unirl.testing.judge import JudgeConformance
from unirl.testing.prompts import PromptsConformance
from unirl.testing.reward import RewardConformance
from unirl.testing.update import UpdateConformance

__all__ = ["JudgeConformance", "PromptsConformance", "RewardConformance", "UpdateConformance"]
