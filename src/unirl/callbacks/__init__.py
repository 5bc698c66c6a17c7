"""Lightning callbacks: guards, quality control, task weights, progress, images, tables, fault tolerance, export."""

from typing import TYPE_CHECKING

from unirl.lazy import lazy_exports

if TYPE_CHECKING:
    from unirl.callbacks.export import ExportPretrained
    from unirl.callbacks.fault_tolerance import (
        CountEpochOnce,
        ReplayMissedValidation,
        RestoreLastSavedStep,
        fault_tolerance_callbacks,
    )
    from unirl.callbacks.gradient_norms import TaskGradientNorms
    from unirl.callbacks.grids import Caption, image_grid
    from unirl.callbacks.guards import Guards
    from unirl.callbacks.images import LogImages
    from unirl.callbacks.preemption import StopOnSigterm
    from unirl.callbacks.progress import ParameterCount, RunProgressBar
    from unirl.callbacks.quality import QualityControl
    from unirl.callbacks.results import ResultsTable
    from unirl.callbacks.run_report import Report
    from unirl.callbacks.schedule import TaskSchedule

__all__ = [
    "Caption",
    "CountEpochOnce",
    "ExportPretrained",
    "Guards",
    "LogImages",
    "ParameterCount",
    "QualityControl",
    "ReplayMissedValidation",
    "Report",
    "RestoreLastSavedStep",
    "ResultsTable",
    "RunProgressBar",
    "StopOnSigterm",
    "TaskGradientNorms",
    "TaskSchedule",
    "fault_tolerance_callbacks",
    "image_grid",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "export": ("ExportPretrained",),
        "fault_tolerance": (
            "CountEpochOnce",
            "ReplayMissedValidation",
            "RestoreLastSavedStep",
            "fault_tolerance_callbacks",
        ),
        "gradient_norms": ("TaskGradientNorms",),
        "guards": ("Guards",),
        "grids": (
            "Caption",
            "image_grid",
        ),
        "images": ("LogImages",),
        "preemption": ("StopOnSigterm",),
        "progress": (
            "ParameterCount",
            "RunProgressBar",
        ),
        "quality": ("QualityControl",),
        "results": ("ResultsTable",),
        "run_report": ("Report",),
        "schedule": ("TaskSchedule",),
    },
)
