"""Conformance of the built-in backbones."""

from pathlib import Path

import pytest
from tests.backbones.janus.tiny import save

from unirl.backbones import Backbone
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.testing import BackboneConformance, TinyBackbone


class TestTinyBackbone(BackboneConformance):
    frozen_parameters = ("image_tokenizer",)

    def make(self) -> Backbone:
        backbone = TinyBackbone()
        backbone.build()
        return backbone

    def make_unbuilt(self) -> Backbone:
        return TinyBackbone()


class TestShowo(BackboneConformance):
    frozen_parameters = ("image_tokenizer",)

    @pytest.fixture(autouse=True)
    def _checkpoint(self, shapes_checkpoint: Path) -> None:
        self.checkpoint = str(shapes_checkpoint)

    def make(self) -> Backbone:
        return Showo.from_pretrained(self.checkpoint)

    def make_unbuilt(self) -> Backbone:
        return Showo("showlab/show-o")


@pytest.fixture(scope="session")
def tiny_janus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("janus"))


class TestJanus(BackboneConformance):
    frozen_parameters = ("vqmodel",)

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tiny_janus: Path) -> None:
        self.checkpoint = str(tiny_janus)

    def make(self) -> Backbone:
        return Janus.from_pretrained(self.checkpoint)

    def make_unbuilt(self) -> Backbone:
        return Janus("deepseek-community/Janus-Pro-1B")
