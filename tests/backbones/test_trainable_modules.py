from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import nn

from unirl.backbones.lora import freeze_except
from unirl.backbones.showo import Showo
from unirl.errors import UserError
from unirl.rewards.keyword import Keyword
from unirl.training.config import RolloutConfig
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, ImageSampling
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.ModuleDict({"eye": nn.Linear(2, 2), "hand": nn.Linear(2, 2)})
    model["eye"].requires_grad_(False)
    freeze_except(model, ["weight"])
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["hand.weight"]
    freeze_except(model, ["weight"])
    assert model["hand"].weight.requires_grad


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"contains 'wieght'; nearest: weight"):
        freeze_except(nn.Linear(2, 2), ["bias", "wieght"])


def test_only_named_parameters_are_trained(shapes_checkpoint: Path, tmp_path: Path) -> None:
    update = SFT(end_to_end=False, answer_labels="prompt")
    model = SelfImprovement(
        Showo(str(shapes_checkpoint)),
        update,
        [Keyword()],
        rollout=RolloutConfig(image_sampling=ImageSampling(steps=4), answer_sampling=AnswerSampling(4)),
        trainable_modules=["self_attn", "lm_head"],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    )
    settings = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    fit = Trainer(accelerator="cpu", default_root_dir=tmp_path, max_epochs=1, inference_mode=False, **settings)
    fit.fit(model, PromptsDataModule(ShapesPrompts(), prompts_per_step=2, steps_per_epoch=2))
    before = dict(Showo.from_pretrained(str(shapes_checkpoint)).named_parameters())
    changed = {n for n, p in model.backbone.named_parameters() if not torch.equal(p, before[n])}
    assert any("lm_head" in name for name in changed)
    assert all("self_attn" in name or "lm_head" in name for name in changed)
