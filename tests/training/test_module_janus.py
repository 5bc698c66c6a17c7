"""The same loop, rules and rewards on a backbone that works in every way unlike Show-o: an untrained tiny Janus."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl.backbones.janus import Janus
from unirl.callbacks import ExportPretrained
from unirl.rewards.likelihood import Likelihood
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts


@pytest.fixture
def checkpoint(janus_checkpoint: Path) -> Path:
    return janus_checkpoint


class Recorder(SelfImprovement):
    """Keeps losses and what was drawn."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.losses: list[float] = []
        self.drawn: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        assert self._rollout is not None
        self.drawn.append(self._rollout.images.codes.clone())
        return loss


def run(checkpoint: Path, folder: Path, update: UpdateRule, resume: Path | None = None, **options: Any) -> Recorder:
    settings: dict[str, Any] = {"group_size": 3, "sampling": ImageSampling(guidance=0.5), "lr": 1e-3, "accept": 0.0}
    settings |= {"answering": AnswerSampling(4), "num_iterations": options.pop("num_iterations", 1)}
    model = Recorder(Janus(str(checkpoint)), update, [Likelihood()], **settings)
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=4, num_val_prompts=6, val_batch_size=6)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, every_n_train_steps=3, save_top_k=-1)],
        **({"max_epochs": 1} | options),
    )
    trainer.fit(model, data, ckpt_path=None if resume is None else str(resume))
    return model


RULES = {
    "sft": lambda: SFT(end_to_end=False, answers="all"),
    "end-to-end": lambda: SFT(end_to_end=True, straight_through_steps=4),
    "grpo": lambda: GRPO(beta=0.1, answer_beta=0.5),
    "grpo-by-masks": lambda: GRPO(likelihood="random_masks", answer_weight=0.0, normalize=False, negative_scale=0.25),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_it(checkpoint: Path, tmp_path: Path, name: str) -> None:
    before = Janus.from_pretrained(str(checkpoint))
    model = run(checkpoint, tmp_path, RULES[name](), max_steps=3)
    assert len(model.losses) == 3
    assert torch.tensor(model.losses).isfinite().all()
    after = dict(model.backbone.named_parameters())
    moved = {name for name, p in before.named_parameters() if not torch.equal(p, after[name])}
    assert any("language_model.layers.0.self_attn" in name for name in moved)
    assert any("generation_head" in name for name in moved)
    assert not any("vqmodel" in name for name in moved)


@pytest.mark.parametrize(("name", "updates"), [("sft", 1), ("sft", 2), ("grpo", 2)])
def test_a_resumed_run_is_the_same_run(checkpoint: Path, tmp_path: Path, name: str, updates: int) -> None:
    whole = run(checkpoint, tmp_path / "a", RULES[name](), max_steps=4, num_iterations=updates)
    run(checkpoint, tmp_path / "b", RULES[name](), max_steps=3, num_iterations=updates)
    rest = run(
        checkpoint,
        tmp_path / "b",
        RULES[name](),
        tmp_path / "b" / "last.ckpt",
        max_steps=4,
        num_iterations=updates,
    )
    assert rest.losses == whole.losses[3:]
    assert torch.equal(rest.drawn[0], whole.drawn[3])
    for one, other in zip(whole.backbone.parameters(), rest.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_drawing_is_painted_once_a_rollout(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[int] = []
    decode = Janus.decode
    monkeypatch.setattr(Janus, "decode", lambda self, images: painted.append(len(images)) or decode(self, images))
    model = run(checkpoint, tmp_path, RULES["grpo"](), max_steps=2, limit_val_batches=0)
    assert painted == [6, 6]
    assert model._rollout is not None
    assert model._rollout.images.pixels is not None


def test_validation_and_export(checkpoint: Path, tmp_path: Path) -> None:
    model = SelfImprovement(
        Janus(str(checkpoint)),
        RULES["sft"](),
        [Likelihood()],
        ShapesJudge(),
        answering=AnswerSampling(4),
        num_understanding=12,
        diversity_prompts=2,
    )
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=1, num_val_prompts=12, val_batch_size=6)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        inference_mode=False,
        callbacks=[ExportPretrained()],
    )
    trainer.fit(model, data)
    assert set(model.measured) >= {"drawing", "seeing", "consistency", "diversity"}
    (folder,) = tmp_path.rglob("pretrained")
    again = Janus.from_pretrained(str(folder))
    for one, other in zip(model.backbone.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["end-to-end", "grpo"])
def test_it_trains_with_weights_of_16_bits(checkpoint: Path, tmp_path: Path, name: str) -> None:
    model = run(checkpoint, tmp_path, RULES[name](), max_steps=2, precision="bf16-true")
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    assert torch.tensor(model.losses).isfinite().all()
