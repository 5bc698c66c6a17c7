"""Training and evaluation: the LightningModule, its data, its settings."""

from typing import TYPE_CHECKING

from unirl.lazy import lazy_exports

if TYPE_CHECKING:
    from unirl.training.best_of import Samples, sample
    from unirl.training.config import AdaptiveSampling, EvaluationConfig, RolloutConfig
    from unirl.training.datamodule import PromptsDataModule
    from unirl.training.evaluation import Evaluator, validate
    from unirl.training.module import SelfImprovement
    from unirl.training.optimizers import WarmupSchedule
    from unirl.training.rollout import Rollouts

__all__ = [
    "AdaptiveSampling",
    "EvaluationConfig",
    "Evaluator",
    "PromptsDataModule",
    "RolloutConfig",
    "Rollouts",
    "Samples",
    "SelfImprovement",
    "WarmupSchedule",
    "sample",
    "validate",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "best_of": (
            "Samples",
            "sample",
        ),
        "config": (
            "AdaptiveSampling",
            "EvaluationConfig",
            "RolloutConfig",
        ),
        "datamodule": ("PromptsDataModule",),
        "evaluation": (
            "Evaluator",
            "validate",
        ),
        "module": ("SelfImprovement",),
        "optimizers": ("WarmupSchedule",),
        "rollout": ("Rollouts",),
    },
)
