"""Random tiny Emu3 models."""

from pathlib import Path

import pytest
import torch

from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("emu3"))


@pytest.fixture(scope="session")
def backbone(checkpoint: Path) -> Emu3:
    return Emu3.from_pretrained(str(checkpoint), ratio="4:3", image_area=48 * 64)
