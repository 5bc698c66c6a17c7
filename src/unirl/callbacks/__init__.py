"""What a user looks at: the table of results, the pictures, the exported model."""

from unirl.callbacks.export import ExportPretrained
from unirl.callbacks.pictures import Pictures
from unirl.callbacks.results import ResultsTable

__all__ = ["ExportPretrained", "Pictures", "ResultsTable"]
