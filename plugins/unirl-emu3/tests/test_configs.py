"""The package's config for public checkpoints parses, and builds on the meta device."""

from pathlib import Path

import pytest

from unirl.cli.train import Run
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl_emu3.backbone import Emu3

CONFIG = Path(__file__).parents[1] / "configs" / "emu3_sft.yaml"
HERE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.logger=false"]


class Built(Run):
    """Parses and builds everything, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def test_the_public_config_builds_on_the_meta_device() -> None:
    arguments = ["fit", "--config", str(CONFIG), *HERE, "--trainer.precision=32-true"]
    model = Built(SelfImprovement, PromptsDataModule, arguments).model
    assert isinstance(model, SelfImprovement)
    assert isinstance(model.backbone, Emu3)
    model.backbone.build(meta=True)
    assert sum(p.numel() for p in model.backbone.parameters()) == pytest.approx(8.8e9, rel=0.02)
    assert model.backbone.num_image_codes == 64 * 64
