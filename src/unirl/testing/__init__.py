"""Conformance checks for plugin authors: pytest classes to derive from, and a small backbone to try things on."""

try:
    import pytest  # noqa: F401 - an optional extra
except ImportError as error:
    raise ImportError(f'unirl.testing needs pytest ({error}); pip install "lightning-unirl[test]"') from error

from unirl.testing.backbone import BackboneConformance
from unirl.testing.judge import JudgeConformance
from unirl.testing.prompts import PromptsConformance
from unirl.testing.reward import RewardConformance
from unirl.testing.table import TableBackbone
from unirl.testing.update import UpdateConformance

__all__ = [
    "BackboneConformance",
    "JudgeConformance",
    "PromptsConformance",
    "RewardConformance",
    "TableBackbone",
    "UpdateConformance",
]
