"""Benchmarks: a judge's own prompts, several images of each by any backbone, scores that come again."""

from typing import TYPE_CHECKING

from unirl.lazy import lazy_exports

if TYPE_CHECKING:
    from unirl.benchmark.benchmark_report import write_report
    from unirl.benchmark.folder import metadata_of
    from unirl.benchmark.paired import Comparison, compare
    from unirl.benchmark.runner import evaluate
    from unirl.benchmark.scores import BenchmarkResults

__all__ = ["BenchmarkResults", "Comparison", "compare", "evaluate", "metadata_of", "write_report"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "benchmark_report": ("write_report",),
        "folder": ("metadata_of",),
        "paired": ("Comparison", "compare"),
        "runner": ("evaluate",),
        "scores": ("BenchmarkResults",),
    },
)
