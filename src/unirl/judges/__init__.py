"""The `judges` plugin kind: its contract, and GenEval's decision rule for judges that detect objects."""

from unirl.judges.answer_words import matches_answer
from unirl.judges.base import Judge, Verdict
from unirl.judges.reference_images import ReferenceImages
from unirl.judges.verdict import (
    COLORS,
    COUNTING_THRESHOLD,
    THRESHOLD,
    Box,
    Detection,
    best_by_class,
    spatial_relations,
    verdict,
)

__all__ = [
    "COLORS",
    "COUNTING_THRESHOLD",
    "THRESHOLD",
    "Box",
    "Detection",
    "Judge",
    "ReferenceImages",
    "Verdict",
    "best_by_class",
    "matches_answer",
    "spatial_relations",
    "verdict",
]
