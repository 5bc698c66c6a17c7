"""Every file of `configs/` parses and builds; those of public checkpoints on the meta device."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from unirl.backbones.lora import select_trainable
from unirl.backbones.showo import Showo
from unirl.cli.train import Run
from unirl.errors import UserError
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.updates.grpo import GRPO

CONFIGS = Path(__file__).parents[1] / "configs"
UNIRL = Path(sys.executable).with_name("unirl")
HERE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.logger"]


class Built(Run):
    """Parses and builds everything, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build(*files: Path, more: Sequence[str] = ()) -> SelfImprovement:
    arguments = [argument for file in files for argument in ("--config", str(file))]
    options = [*HERE, "false", "--trainer.precision", "32-true"]
    model = Built(SelfImprovement, PromptsDataModule, ["fit", *arguments, *options, *more]).model
    assert isinstance(model, SelfImprovement)
    return model


def command_of(overlay: Path) -> list[Path]:
    """The files that the command in its second line names: itself, on top of another."""
    return [CONFIGS.parent / name for name in re.findall(r"configs/[\w/]+\.yaml", overlay.read_text().split("\n")[1])]


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_the_overlays_that_a_config_names_are_those_on_top_of_it(name: str) -> None:
    named = set(re.findall(r"[\w/]+\.yaml", (CONFIGS / name).read_text().split("\nname:")[0]))
    for overlay in {Path(one).name for one in named}:
        assert command_of(CONFIGS / "scale" / overlay) == [CONFIGS / name, CONFIGS / "scale" / overlay]
    assert named


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_embedded_config_loads_its_checkpoint(name: str) -> None:
    model = build(CONFIGS / name)
    model.configure_model()
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) > 100_000


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIGS / "scale").glob("*.yaml")))
def test_public_config_builds_on_the_meta_device(name: str) -> None:
    model = build(*command_of(CONFIGS / "scale" / name))
    model.backbone.build(meta=True)
    weights = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert all(p.is_meta for p in model.backbone.parameters())
    assert weights == pytest.approx(7.3e9 if "7b" in name else 2.0e9 if "janus" in name else 1.45e9, rel=0.05)
    if model.lora is not None:  # four matrices of 30 layers, three of 24 layers of the vision tower
        select_trainable(model.backbone, model.trainable_modules, model.lora)
        trainable_modules = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
        assert trainable_modules == model.lora.rank * 2 * (30 * 4 * 4096 + 24 * 3 * 1024)
    if "janus" in name:
        assert model.group_size == (8 if isinstance(model.update, GRPO) else 1)
    frozen = (
        model.backbone.image_tokenizer
        if isinstance(model.backbone, Showo)
        else model.backbone.transformer.parts.vqmodel
    )
    assert not any(p.requires_grad for p in frozen.parameters())
    assert model.lr == 1e-5
    assert model.judge is None


def test_the_oracle_is_a_diagnosis_on_top_of_grpo() -> None:
    shipped, diagnosis = build(CONFIGS / "showo_grpo.yaml"), CONFIGS / "diagnose" / "oracle.yaml"
    assert [reward.name for reward in shipped.rewards] == ["keyword"]
    assert [reward.name for reward in build(CONFIGS / "showo_grpo.yaml", diagnosis).rewards] == ["oracle"]


def test_the_run_made_to_be_gamed_has_its_reward_in_a_file_of_its_own(tmp_path: Path) -> None:
    files = [CONFIGS / "showo_grpo.yaml", CONFIGS / "diagnose" / "gamed.yaml"]
    configs = [argument for file in files for argument in ("--config", str(file))]
    plugin = ["--plugin", str(CONFIGS / "diagnose" / "saturation.py")]
    small = ["--data.prompts_per_step", "1", "--data.steps_per_epoch", "1", "--data.num_val_prompts", "6"]
    small += ["--trainer.val_check_interval", "1", "--model.group_size", "2", "--model.num_understanding", "6"]
    small += ["--model.diversity_prompts", "0", "--trainer.default_root_dir", str(tmp_path)]
    done = subprocess.run([UNIRL, "fit", *configs, *plugin, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "saturation" in next(tmp_path.rglob("config.yaml")).read_text()


@pytest.mark.parametrize("rule", ["sft", "grpo"])
def test_a_config_of_an_earlier_version_is_told_where_accept_is_now(rule: str) -> None:
    config = CONFIGS / f"showo_{rule}.yaml"
    with pytest.raises(UserError, match=r"^model\.update: no option 'accept'; see model\.accept \(in .*\)$"):
        build(config, more=["--model.update.init_args.accept", "1.0"])
    assert build(config).accept_threshold is None
    assert build(config, more=["--model.rollout.accept_threshold", "1.5"]).accept_threshold == 1.5
