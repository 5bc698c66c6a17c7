"""What watches a run, what a user looks at, and what lets a run be gone on with."""

from unirl.callbacks.accumulation import KeepGradients
from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.guards import Guards
from unirl.callbacks.pictures import Pictures
from unirl.callbacks.preemption import StopOnSigterm
from unirl.callbacks.quality import QualityControl
from unirl.callbacks.results import ResultsTable

__all__ = [
    "ExportPretrained",
    "Guards",
    "KeepGradients",
    "Pictures",
    "QualityControl",
    "ResultsTable",
    "StopOnSigterm",
]
