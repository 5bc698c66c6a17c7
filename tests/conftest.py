"""Shared by all tests: one thread, and an untrained tiny model of each kind."""

import os
from pathlib import Path

import pytest
import torch
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.showo import Magvit, MagvitConfig
from unirl_shapes.pretrain import janus, vq
from unirl_shapes.pretrain.showo import untrained

os.environ.pop("COLUMNS", None)  # parallel test runs set it; what is printed is read whole here
torch.set_num_threads(1)  # tiny models: a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start, too: threads that share a busy core spin


@pytest.fixture(scope="session")
def shapes_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the shapes world with fresh weights: 64 px, 16 codes."""
    folder = tmp_path_factory.mktemp("untrained")
    sizes = MagvitConfig(4, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,) * 5, (1,) * 5, z_channels=7, groups=2)
    untrained(folder, Magvit(sizes), seed=0)
    return folder


@pytest.fixture(scope="session")
def janus_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a tiny Janus."""
    folder = tmp_path_factory.mktemp("janus")
    janus.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**vq.SIZES)), 0)
    return folder
