"""Conformance of a tiny Emu3."""

from pathlib import Path

import pytest

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance
from unirl_emu3.backbone import Emu3


class TestEmu3(BackboneConformance):
    frozen_parameters = ("vqmodel",)

    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoint: Path) -> None:
        self.checkpoint = str(checkpoint)

    def make(self) -> Backbone:
        return Emu3.from_pretrained(self.checkpoint, image_area=32 * 32)

    def make_unbuilt(self) -> Backbone:
        return Emu3("BAAI/Emu3-Gen-hf")
