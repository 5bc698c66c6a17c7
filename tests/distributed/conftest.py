"""Untrained checkpoints of both backbones."""

from pathlib import Path

import pytest


@pytest.fixture
def checkpoints(shapes_checkpoint: Path, janus_checkpoint: Path) -> dict[str, Path]:
    return {"showo": shapes_checkpoint, "janus": janus_checkpoint}
