"""Shared by all tests: one thread, and a tiny untrained Show-o and Janus."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Magvit, MagvitConfig, Showo
from unirl_shapes.pretrain import janus, showo, vq

torch.set_num_threads(1)  # tiny models are slower with more threads


@pytest.fixture(scope="session")
def showo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("showo")
    sizes = MagvitConfig(4, (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), (1,) * 5, (1,) * 5, z_channels=7, groups=2)
    showo.untrained(folder, Magvit(sizes), seed=0)
    return folder


@pytest.fixture(scope="session")
def janus_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("janus")
    janus.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**vq.SIZES)), 0)
    return folder


@pytest.fixture(params=["showo", "janus"])
def fresh(request: pytest.FixtureRequest) -> Callable[[], Backbone]:
    """Makes the backbone that is tested, with the same weights every time."""
    checkpoint = str(request.getfixturevalue(f"{request.param}_checkpoint"))
    return lambda: Showo(checkpoint) if request.param == "showo" else Janus(checkpoint)
