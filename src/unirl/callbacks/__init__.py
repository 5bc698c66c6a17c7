"""What watches a run, and what a user looks at: guards, quality control, results, pictures, the exported model."""

from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.guards import Guards
from unirl.callbacks.pictures import Pictures
from unirl.callbacks.quality import QualityControl
from unirl.callbacks.results import ResultsTable

__all__ = ["ExportPretrained", "Guards", "Pictures", "QualityControl", "ResultsTable"]
