"""Whole runs of both rules on untrained models: what trains, what repeats, and what the shipped configs say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.lora import LoRA
from unirl.cli.train import Run
from unirl.rewards import Reward
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling
from unirl.updates import UpdateRule
from unirl_dpo.best_of_n import BestOfN
from unirl_dpo.dpo import DPO
from unirl_shapes.prompts import ShapesPrompts

ROOT = Path(__file__).parents[3]
RULES: dict[str, Callable[[], UpdateRule]] = {
    "dpo": lambda: DPO(num_masks=2),
    "dpo of all pairs": lambda: DPO(variant="ipo", pairs="all", likelihood="decisions", sft_weight=0.1),
    "best of n": lambda: BestOfN(num_masks=2),
    "best of n, accepted or not": lambda: BestOfN(learn="best"),
}


class Dark(Reward):
    """Likes dark pictures; accepts everything, so that every step learns something."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return 2 - images.pixels.mean((1, 2, 3))


class Recorder(SelfImprovement):
    """Keeps the losses."""

    def training_step(self, batch: Sequence[Example], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses = [*getattr(self, "losses", []), loss.item()]
        return loss


def run(backbone: Backbone, rule: UpdateRule, folder: Path, resume: Path | None = None, **options: Any) -> Recorder:
    sizes = {name: options.pop(name) for name in ("num_iterations", "lora") if name in options}
    sampling, answering = ImageSampling(steps=4), AnswerSampling(4)
    model = Recorder(backbone, rule, [Dark()], group_size=3, sampling=sampling, answering=answering, lr=1e-3, **sizes)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        limit_val_batches=0,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
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
    logs = model.trainer.callback_metrics
    assert logs["train/unpaired_groups" if "dpo" in name else "train/learnt_groups"] == float("dpo" not in name)
    after = dict(model.backbone.named_parameters())
    moved = {name for name, p in before.named_parameters() if not torch.equal(p, after[name])}
    assert any("layers.0.self_attn" in name for name in moved)
    assert not any("image_tokenizer" in name or "vqmodel" in name for name in moved)


@pytest.mark.parametrize("updates", [1, 3])
@pytest.mark.parametrize("name", ["dpo", "best of n"])
def test_a_resumed_run_is_the_same_run(name: str, updates: int, fresh: Callable[[], Backbone], tmp_path: Path) -> None:
    """With three updates a rollout, the run stops between the first and the second one of the second rollout."""
    options = {"num_iterations": updates}
    whole = run(fresh(), RULES[name](), tmp_path / "whole", max_steps=6, **options)
    head = run(fresh(), RULES[name](), tmp_path / "head", max_steps=4, **options)
    saved = tmp_path / "head" / "step=4.ckpt"
    tail = run(fresh(), RULES[name](), tmp_path / "tail", saved, max_steps=6, **options)
    assert head.losses + tail.losses == whole.losses
    assert len(set(whole.losses)) == 6
    for one, other in zip(whole.backbone.parameters(), tail.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_adapters_are_trained_against_the_model_without_them(fresh: Callable[[], Backbone], tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    rule = DPO()
    model = run(fresh(), rule, tmp_path, max_steps=2, lora=LoRA(("q_proj",), rank=2))
    trained = [name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("q_proj.lora_" in name for name in trained)
    assert model.losses[0] == pytest.approx(0.6931472)  # adapters start at nothing
    assert model.losses[1] != model.losses[0]


class Built(Run):
    """Parses and builds everything, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.mark.parametrize(("base", "overlay"), [("showo_grpo", "showo_dpo"), ("showo_sft", "showo_best_of_n")])
def test_shipped_overlays_parse_and_build(base: str, overlay: str) -> None:
    if not (ROOT / "configs" / f"{base}.yaml").exists():
        pytest.skip("the overlays lie on configs of a checkout of lightning-unirl")
    files = ROOT / "configs" / f"{base}.yaml", ROOT / "plugins" / "unirl-dpo" / "configs" / f"{overlay}.yaml"
    arguments = [argument for file in files for argument in ("--config", str(file))]
    model = Built(SelfImprovement, PromptsDataModule, ["fit", *arguments, "--trainer.logger", "false"]).model
    assert isinstance(model, SelfImprovement)
    assert type(model.update) is {"showo_dpo": DPO, "showo_best_of_n": BestOfN}[overlay]
    model.configure_model()
    assert sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) > 100_000
