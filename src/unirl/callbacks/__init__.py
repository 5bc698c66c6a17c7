"""Lightning callbacks: guards, quality control, task weights, progress, images, tables, fault tolerance, export."""

from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.fault_tolerance import ReplayMissedValidation, RestoreLastSavedStep, fault_tolerance_callbacks
from unirl.callbacks.gradient_norms import TaskGradientNorms
from unirl.callbacks.guards import Guards
from unirl.callbacks.images import Caption, LogImages, image_grid
from unirl.callbacks.preemption import StopOnSigterm
from unirl.callbacks.progress import ParameterCount, RunProgressBar
from unirl.callbacks.quality import QualityControl
from unirl.callbacks.results import ResultsTable
from unirl.callbacks.schedule import TaskSchedule

__all__ = [
    "Caption",
    "ExportPretrained",
    "Guards",
    "LogImages",
    "ParameterCount",
    "QualityControl",
    "ReplayMissedValidation",
    "RestoreLastSavedStep",
    "ResultsTable",
    "RunProgressBar",
    "StopOnSigterm",
    "TaskGradientNorms",
    "TaskSchedule",
    "fault_tolerance_callbacks",
    "image_grid",
]
