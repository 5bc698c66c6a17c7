"""Shared by all tests: one thread, and a tiny Show-o that has learnt nothing."""

import os
from pathlib import Path

import pytest
import torch

from unirl.backbones.showo import Magvit, MagvitConfig
from unirl_shapes.pretrain.showo import untrained

os.environ.pop("COLUMNS", None)  # parallel test runs set it; what is printed is read whole here
torch.set_num_threads(1)  # tiny models: a second thread costs more than it brings


@pytest.fixture(scope="session")
def shapes_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the shapes world with fresh weights: 64 px, 16 codes."""
    folder = tmp_path_factory.mktemp("untrained")
    sizes = MagvitConfig(4, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,) * 5, (1,) * 5, z_channels=7, groups=2)
    untrained(folder, Magvit(sizes), seed=0)
    return folder
