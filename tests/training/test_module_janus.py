"""The same training on a backbone of another kind: an untrained tiny Janus."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from unirl import ExportPretrained, ImageSampling, SelfImprovement
from unirl.backbones.janus import Janus
from unirl.rewards.likelihood import Likelihood
from unirl.updates import UpdateRule
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty, PolicyLoss
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge


class Recorder(SelfImprovement):
    """Records losses and generated codes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        assert self._current is not None
        self.losses = [*getattr(self, "losses", []), loss.item()]
        self.codes = [*getattr(self, "codes", []), self._current.images.codes.clone()]
        return loss


@pytest.fixture
def run(runs, janus_checkpoint: Path):
    def fit(folder: Path, update: UpdateRule, resume: Path | None = None, iterations: int = 1, **options: Any):
        settings: dict[str, Any] = {
            "group_size": 3,
            "image_sampling": ImageSampling(guidance=0.5),
            "accept_threshold": 0.0,
        }
        settings["num_iterations"] = iterations
        model = runs.module(Janus(str(janus_checkpoint)), update, [Likelihood()], Recorder, **settings)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1)
        trainer = runs.trainer(folder, callbacks=[saving], **({"max_epochs": 1} | options))
        data = runs.data(steps_per_epoch=4, num_val_prompts=6)
        trainer.fit(model, data, ckpt_path=None if resume is None else str(resume))
        return model

    return fit


RULES = {
    "sft": lambda: SFT(end_to_end=False, answer_labels="prompt"),
    "end-to-end": lambda: SFT(end_to_end=True, straight_through_steps=4),
    "grpo": lambda: GRPO(kl=KLPenalty(beta=0.1, answer_beta=0.5)),
    "grpo, random masks": lambda: GRPO(
        answer_weight=0.0,
        loss=PolicyLoss(scale_rewards=False, negative_scale=0.25),
        scoring=ImageScoring(likelihood="random_masks"),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_trains_it(run, janus_checkpoint: Path, tmp_path: Path, name: str) -> None:
    before = Janus.from_pretrained(str(janus_checkpoint))
    model = run(tmp_path, RULES[name](), max_steps=3)
    assert len(model.losses) == 3
    assert torch.tensor(model.losses).isfinite().all()
    after = dict(model.backbone.named_parameters())
    changed = {name for name, p in before.named_parameters() if not torch.equal(p, after[name])}
    assert any("language_model.layers.0.self_attn" in name for name in changed)
    assert any("generation_head" in name for name in changed)
    assert not any("vqmodel" in name for name in changed)


@pytest.mark.parametrize(("name", "iterations"), [("sft", 1), ("sft", 2), ("grpo", 2)])
def test_a_resumed_run_is_the_same_run(run, tmp_path: Path, name: str, iterations: int) -> None:
    complete = run(tmp_path / "a", RULES[name](), max_steps=4, iterations=iterations)
    saved = tmp_path / "a" / "step=3.ckpt"
    rest = run(tmp_path / "b", RULES[name](), saved, max_steps=4, iterations=iterations)
    assert rest.losses == complete.losses[3:]
    assert torch.equal(rest.codes[0], complete.codes[3])
    for one, other in zip(complete.backbone.parameters(), rest.backbone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_images_are_decoded_once_for_each_rollout(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = Janus.decode
    monkeypatch.setattr(Janus, "decode", lambda self, images: decoded.append(len(images)) or decode(self, images))
    model = run(tmp_path, RULES["grpo"](), max_steps=2, limit_val_batches=0)
    assert decoded == [6, 6]
    assert model._current.images.pixels is not None


def test_evaluation_and_export(runs, janus_checkpoint: Path, tmp_path: Path) -> None:
    options = {"judge": ShapesJudge(), "num_understanding": 12, "num_diversity_prompts": 2}
    model = runs.module(Janus(str(janus_checkpoint)), RULES["sft"](), [Likelihood()], **options)
    trainer = runs.trainer(tmp_path, logger=True, max_epochs=1, callbacks=[ExportPretrained()])
    trainer.fit(model, runs.data(steps_per_epoch=1))
    assert set(model.val_metrics) >= {"generation", "understanding", "consistency", "diversity"}
    (folder,) = tmp_path.rglob("pretrained")
    exported = Janus.from_pretrained(str(folder))
    for one, other in zip(model.backbone.parameters(), exported.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["end-to-end", "grpo"])
def test_computation_in_16_bit(run, tmp_path: Path, name: str) -> None:
    model = run(tmp_path, RULES[name](), max_steps=2, precision="bf16-mixed")
    assert torch.tensor(model.losses).isfinite().all()
