"""Untrained checkpoints of both backbones."""

from pathlib import Path

import pytest
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl_shapes.pretrain import janus as pretrain
from unirl_shapes.pretrain import vq


@pytest.fixture(scope="session")
def janus_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("janus")
    pretrain.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**vq.SIZES)), 0)
    return folder


@pytest.fixture
def checkpoints(shapes_checkpoint: Path, janus_checkpoint: Path) -> dict[str, Path]:
    return {"showo": shapes_checkpoint, "janus": janus_checkpoint}
