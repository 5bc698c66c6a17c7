"""What watches a run, what a user looks at, and what lets a run be gone on with."""

from lightning import Callback

from unirl.callbacks.accumulation import KeepGradients
from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.guards import Guards
from unirl.callbacks.images import LogImages
from unirl.callbacks.preemption import StopOnSigterm
from unirl.callbacks.quality import QualityControl
from unirl.callbacks.results import ResultsTable
from unirl.callbacks.validation_replay import KeepLogs, ReplayMissedValidation

__all__ = [
    "ExportPretrained",
    "Guards",
    "KeepGradients",
    "KeepLogs",
    "LogImages",
    "QualityControl",
    "ReplayMissedValidation",
    "ResultsTable",
    "StopOnSigterm",
    "fault_tolerance_callbacks",
]


def fault_tolerance_callbacks() -> list[Callback]:
    """What every run has, lest it be lost; in this order."""
    return [StopOnSigterm(), KeepGradients(), KeepLogs(), ReplayMissedValidation()]
