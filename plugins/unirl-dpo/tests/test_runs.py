"""Runs of both rules on untrained models, and the shipped configs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl import (
    Answers,
    AnswerSampling,
    Example,
    Images,
    ImageSampling,
    LoRA,
    PromptsDataModule,
    RolloutConfig,
    SelfImprovement,
)
from unirl.backbones import Backbone
from unirl.cli.train import Run
from unirl.rewards import Reward
from unirl.updates import UpdateRule
from unirl_dpo.best_of_n import BestOfN
from unirl_dpo.dpo import DPO
from unirl_shapes.prompts import ShapesPrompts

ROOT = Path(__file__).parents[3]
RULES: dict[str, Callable[[], UpdateRule]] = {
    "dpo": lambda: DPO(num_masks=2),
    "dpo of all pairs": lambda: DPO(variant="ipo", pairs="all", likelihood="decisions", sft_weight=0.1),
    "best of n": lambda: BestOfN(num_masks=2),
    "best of n, accepted or not": lambda: BestOfN(select="best"),
}


class Darkness(Reward):
    """Scores dark images higher. Accepts all samples, so that every step has a loss."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return 2 - images.pixels.mean((1, 2, 3))


class Recorder(SelfImprovement):
    """Records the losses."""

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def run(backbone: Backbone, rule: UpdateRule, folder: Path, resume: Path | None = None, **options: Any) -> Recorder:
    iterations, lora = options.pop("num_iterations", 1), options.pop("lora", None)
    rollout = RolloutConfig(3, iterations, ImageSampling(steps=4), AnswerSampling(4))
    model = Recorder(
        backbone, rule, [Darkness()], rollout=rollout, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3), lora=lora
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        limit_val_batches=0,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)],
        **options,
    )
    trainer.fit(model, PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=6, num_val_prompts=6), ckpt_path=resume)
    return model


@pytest.mark.parametrize("name", RULES)
def test_both_backbones_are_trained(name: str, fresh: Callable[[], Backbone], tmp_path: Path) -> None:
    before = fresh()
    before.build()
    model = run(fresh(), RULES[name](), tmp_path, max_steps=2)
    assert torch.tensor(model.losses).isfinite().all()
    metrics = model.trainer.callback_metrics
    assert metrics["frac_unpaired_groups" if "dpo" in name else "frac_trained_groups"] == float("dpo" not in name)
    after = dict(model.backbone.named_parameters())
    changed = {name for name, p in before.named_parameters() if not torch.equal(p, after[name])}
    assert any("layers.0.self_attn" in name for name in changed)
    assert not any("image_tokenizer" in name or "vqmodel" in name for name in changed)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("name", ["dpo", "best of n"])
def test_a_resumed_run_is_the_same(name: str, iterations: int, fresh: Callable[[], Backbone], tmp_path: Path) -> None:
    """With three iterations, the checkpoint is of the first iteration on the second rollout."""
    options = {"num_iterations": iterations, "max_steps": 6}
    uninterrupted = run(fresh(), RULES[name](), tmp_path / "uninterrupted", **options)
    checkpoint = tmp_path / "uninterrupted" / "step=4.ckpt"
    resumed = run(fresh(), RULES[name](), tmp_path / "resumed", checkpoint, **options)
    assert resumed.losses == uninterrupted.losses[4:]
    assert len(set(uninterrupted.losses)) == 6
    for first, second in zip(uninterrupted.backbone.parameters(), resumed.backbone.parameters(), strict=True):
        assert torch.equal(first, second)


def test_adapters_are_trained_against_the_model_without_them(fresh: Callable[[], Backbone], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    rule = DPO()
    model = run(fresh(), rule, tmp_path, max_steps=2, lora=LoRA(("q_proj",), rank=2))
    trained = [name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("q_proj.lora_" in name for name in trained)
    assert model.losses[0] == pytest.approx(0.6931472)  # log 2: untrained adapters change nothing
    assert model.losses[1] != model.losses[0]


class Built(Run):
    """Parses and builds everything without running it."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.mark.parametrize(("base", "overlay"), [("showo_grpo", "showo_dpo"), ("showo_sft", "showo_best_of_n")])
def test_shipped_overlays_parse_and_build(base: str, overlay: str) -> None:
    if not (ROOT / "configs" / f"{base}.yaml").exists():
        pytest.skip("needs the configs of a checkout of lightning-unirl")
    files = ROOT / "configs" / f"{base}.yaml", ROOT / "plugins" / "unirl-dpo" / "configs" / f"{overlay}.yaml"
    arguments = [argument for file in files for argument in ("--config", str(file))]
    model = Built(SelfImprovement, PromptsDataModule, ["fit", *arguments, "--trainer.logger", "false"]).model
    assert isinstance(model, SelfImprovement)
    assert type(model.update) is {"showo_dpo": DPO, "showo_best_of_n": BestOfN}[overlay]
    model.configure_model()
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) > 100_000
