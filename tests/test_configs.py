"""Every file of `configs/` parses and builds; those of public checkpoints on the meta device."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from unirl.backbones.showo import Showo
from unirl.cli_run import Run
from unirl.data import PromptsModule
from unirl.errors import UserError
from unirl.loop import SelfImprovement

CONFIGS = Path(__file__).parents[1] / "configs"
HERE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.logger"]


class Built(Run):
    """Parses and builds everything, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build(*files: Path, more: Sequence[str] = ()) -> SelfImprovement:
    arguments = [argument for file in files for argument in ("--config", str(file))]
    options = [*HERE, "false", "--trainer.precision", "32-true"]
    model = Built(SelfImprovement, PromptsModule, ["fit", *arguments, *options, *more]).model
    assert isinstance(model, SelfImprovement)
    return model


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_embedded_config_loads_its_checkpoint(name: str) -> None:
    model = build(CONFIGS / name)
    model.configure_model()
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) > 100_000


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIGS / "scale").glob("*.yaml")))
def test_public_config_builds_on_the_meta_device(name: str) -> None:
    base = "janus_grpo" if "janus" in name else "showo_grpo" if "grpo" in name else "showo_sft"
    model = build(CONFIGS / f"{base}.yaml", CONFIGS / "scale" / name)
    model.backbone.build(meta=True)
    trained = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    assert all(p.is_meta for p in model.backbone.parameters())
    assert trained == pytest.approx(7.3e9 if "7b" in name else 2.0e9 if "janus" in name else 1.45e9, rel=0.05)
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


@pytest.mark.parametrize("rule", ["sft", "grpo"])
def test_a_config_of_an_earlier_version_is_told_where_accept_is_now(rule: str) -> None:
    config = CONFIGS / f"showo_{rule}.yaml"
    with pytest.raises(UserError, match=r"^model\.update: no option 'accept'; see model\.accept \(in .*\)$"):
        build(config, more=["--model.update.init_args.accept", "1.0"])
    assert build(config).accept is None
    assert build(config, more=["--model.accept", "1.5"]).accept == 1.5
