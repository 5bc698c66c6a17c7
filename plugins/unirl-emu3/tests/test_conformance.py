"""Conformance of a tiny Emu3."""

import tempfile
from pathlib import Path

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save


class TestEmu3(BackboneConformance):
    frozen_parameters = ("vqmodel",)

    def make(self) -> Backbone:
        with tempfile.TemporaryDirectory() as folder:
            return Emu3.from_pretrained(str(save(Path(folder))), image_area=32 * 32)

    def make_unbuilt(self) -> Backbone:
        return Emu3("BAAI/Emu3-Gen-hf")
