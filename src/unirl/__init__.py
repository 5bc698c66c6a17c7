"""Self-improvement of unified multimodal models: generate, answer, score, learn.

Names are imported when they are first used: `import unirl` takes no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unirl.errors import UserError
from unirl.hooks import hookimpl

if TYPE_CHECKING:
    from unirl.backbones.lora import LoRA
    from unirl.backbones.sampling_config import SamplingConfig
    from unirl.benchmark import BenchmarkResults, Comparison, compare, evaluate, write_report
    from unirl.callbacks import (
        ExportPretrained,
        Guards,
        LogImages,
        QualityControl,
        Report,
        ResultsTable,
        RunProgressBar,
        TaskGradientNorms,
        TaskSchedule,
        fault_tolerance_callbacks,
    )
    from unirl.callbacks.grids import Caption, image_grid
    from unirl.hooks.host import load
    from unirl.hooks.specs import Register
    from unirl.training import (
        EvaluationConfig,
        PromptsDataModule,
        RolloutConfig,
        Samples,
        SelfImprovement,
        WarmupSchedule,
        sample,
        validate,
    )
    from unirl.types import (
        AnswerLabels,
        Answers,
        AnswerSampling,
        Candidates,
        CandidateSampling,
        Example,
        Images,
        ImageSampling,
        Item,
        Question,
        Rollout,
        question_rows,
    )

__version__ = "0.1.0"
__all__ = [
    "AnswerLabels",
    "AnswerSampling",
    "Answers",
    "BenchmarkResults",
    "CandidateSampling",
    "Candidates",
    "Caption",
    "Comparison",
    "EvaluationConfig",
    "Example",
    "ExportPretrained",
    "Guards",
    "ImageSampling",
    "Images",
    "Item",
    "LoRA",
    "LogImages",
    "PromptsDataModule",
    "QualityControl",
    "Question",
    "Register",
    "Report",
    "ResultsTable",
    "Rollout",
    "RolloutConfig",
    "RunProgressBar",
    "Samples",
    "SamplingConfig",
    "SelfImprovement",
    "TaskGradientNorms",
    "TaskSchedule",
    "UserError",
    "WarmupSchedule",
    "__version__",
    "compare",
    "evaluate",
    "fault_tolerance_callbacks",
    "hookimpl",
    "image_grid",
    "load",
    "question_rows",
    "sample",
    "validate",
    "write_report",
]

_MODULES = {
    "unirl.backbones.lora": ("LoRA",),
    "unirl.backbones.sampling_config": ("SamplingConfig",),
    "unirl.benchmark": ("BenchmarkResults", "Comparison", "compare", "evaluate", "write_report"),
    "unirl.callbacks": (
        *("ExportPretrained", "Guards", "LogImages", "QualityControl", "Report", "ResultsTable"),
        *("RunProgressBar", "TaskGradientNorms", "TaskSchedule", "fault_tolerance_callbacks"),
    ),
    "unirl.callbacks.grids": ("Caption", "image_grid"),
    "unirl.hooks.host": ("load",),
    "unirl.hooks.specs": ("Register",),
    "unirl.training": (
        *("EvaluationConfig", "PromptsDataModule", "RolloutConfig", "Samples", "SelfImprovement", "WarmupSchedule"),
        *("validate", "sample"),
    ),
    "unirl.types": (
        *("AnswerLabels", "AnswerSampling", "Answers", "CandidateSampling", "Candidates", "Example", "ImageSampling"),
        *("Images", "Item", "Question", "Rollout", "question_rows"),
    ),
}
_SOURCES = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = (
    *("backbones", "callbacks", "functional", "judges", "prompts", "rewards", "sampling", "testing", "training"),
    "updates",
)
"""Public packages, so that `unirl.training` works without an import of its own."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"unirl.{name}")
    if name not in _SOURCES:
        raise AttributeError(f"module 'unirl' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_SOURCES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})
