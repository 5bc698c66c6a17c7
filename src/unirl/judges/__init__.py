"""The `judges` plugin kind: its contract, and GenEval's decision rule for judges that detect objects."""

from unirl.judges.base import Judge, Verdict
from unirl.judges.verdict import Box, Detection, spatial_relations, verdict

__all__ = ["Box", "Detection", "Judge", "Verdict", "spatial_relations", "verdict"]
