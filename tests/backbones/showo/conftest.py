"""A Show-o checkpoint small enough for a test, whose text model has golden tensors of the public code."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unirl.backbones.showo import Magvit, MagvitConfig, Showo

GOLDEN = Path(__file__).parents[2] / "fixtures" / "showo_golden"


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    """What the public code computed."""
    return load_file(GOLDEN / "golden.safetensors")


@pytest.fixture(scope="session")
def meta() -> dict[str, Any]:
    """The prompts and questions of the golden tensors."""
    return json.loads((GOLDEN / "meta.json").read_text())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden text model with a seeded image tokenizer of 6 bits (the golden one has 13: another codebook)."""
    folder = tmp_path_factory.mktemp("showo") / "checkpoint"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("golden*", "meta*", "magvit*"))
    config = MagvitConfig(8, (1,) * 5, (1,) * 5, (1,) * 5, (1,) * 5, z_channels=6, groups=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        magvit = Magvit(config)
    (folder / "vq").mkdir()
    (folder / "vq" / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    save_file(magvit.state_dict(), folder / "vq" / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def load(checkpoint: Path) -> Callable[..., Showo]:
    """Build a Show-o from the golden checkpoint, or from a copy of it."""

    def build(folder: Path = checkpoint) -> Showo:
        backbone = Showo(str(folder), image_tokenizer="vq", max_text_len=12)
        backbone.build()
        return backbone

    return build


@pytest.fixture(scope="session")
def backbone(load: Callable[..., Showo]) -> Showo:
    """One for all tests that leave its parameters, and their gradients, alone."""
    return load()


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint to break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))
