"""Conformance checks for plugin authors: pytest classes to derive from, and small backbones and values to test with."""

try:
    import pytest  # noqa: F401 - an optional extra
except ImportError as error:
    raise ImportError(f'unirl.testing needs pytest ({error}); pip install "lightning-unirl[test]"') from error

from unirl.testing.backbone import BackboneConformance
from unirl.testing.bandit import BanditBackbone, make_bandit_rollout
from unirl.testing.judge import JudgeConformance
from unirl.testing.pretend import pretend_accelerator
from unirl.testing.prompts import PromptsConformance
from unirl.testing.reward import RewardConformance
from unirl.testing.samples import EDGE_CASE_TEXTS, EXAMPLES, make_answers, make_images, make_rollout
from unirl.testing.tiny_backbone import TinyBackbone
from unirl.testing.update import UpdateConformance

__all__ = [
    "EDGE_CASE_TEXTS",
    "EXAMPLES",
    "BackboneConformance",
    "BanditBackbone",
    "JudgeConformance",
    "PromptsConformance",
    "RewardConformance",
    "TinyBackbone",
    "UpdateConformance",
    "make_answers",
    "make_bandit_rollout",
    "make_images",
    "make_rollout",
    "pretend_accelerator",
]
