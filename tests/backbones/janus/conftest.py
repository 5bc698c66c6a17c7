"""Random tiny Janus models."""

from pathlib import Path

import pytest
from tests.backbones.janus.tiny import save

from unirl.backbones.janus import Janus


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("janus"))


@pytest.fixture(scope="session")
def backbone(checkpoint: Path) -> Janus:
    return Janus.from_pretrained(str(checkpoint)).eval()
