"""What watches a run, what a user looks at, and what lets a run be gone on with."""

from lightning import Callback

from unirl.callbacks.accumulation import KeepGradients
from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.guards import Guards
from unirl.callbacks.images import Pictures
from unirl.callbacks.preemption import StopOnSigterm
from unirl.callbacks.quality import QualityControl
from unirl.callbacks.results import ResultsTable
from unirl.callbacks.validation_replay import KeepLogs, KeepValidation

__all__ = [
    "ExportPretrained",
    "Guards",
    "KeepGradients",
    "KeepLogs",
    "KeepValidation",
    "Pictures",
    "QualityControl",
    "ResultsTable",
    "StopOnSigterm",
    "survival",
]


def survival() -> list[Callback]:
    """What every run has, lest it be lost; in this order."""
    return [StopOnSigterm(), KeepGradients(), KeepLogs(), KeepValidation()]
