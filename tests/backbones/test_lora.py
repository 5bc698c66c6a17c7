"""LoRA: what is trained, what the reference is, and what is exported."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from unirl.backbones.lora import LoRA, add_adapters, freeze_except, merged
from unirl.backbones.showo import Showo
from unirl.callbacks import ExportPretrained
from unirl.errors import UserError
from unirl.rewards.likelihood import Likelihood
from unirl.training.config import RolloutConfig
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement
from unirl.types import AnswerSampling, Images, ImageSampling
from unirl.updates.grpo import GRPO, KLPenalty
from unirl.updates.reference import Reference
from unirl_shapes.prompts import ShapesPrompts

pytest.importorskip("peft", reason="the extra `lora` is not installed")
PROMPTS = ["a photo of a ring", "a photo of two circles"]


def likelihood(backbone: Showo, images: Images) -> torch.Tensor:
    return backbone.image_log_probs(PROMPTS, images, ImageSampling(steps=4))[0].detach()


@pytest.fixture
def adapted(shapes_checkpoint: Path) -> Showo:
    """Adapters that do something: peft starts them at nothing."""
    backbone = Showo.from_pretrained(str(shapes_checkpoint))
    add_adapters(backbone, LoRA(rank=4))
    torch.manual_seed(0)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def test_the_reference_is_the_base_and_a_merged_model_is_the_adapted_one(
    adapted: Showo, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    base = Showo.from_pretrained(str(shapes_checkpoint))
    images = base.sample_images(PROMPTS, ImageSampling(steps=4), torch.Generator().manual_seed(0))
    with_adapters = likelihood(adapted, images)
    assert (with_adapters - likelihood(base, images)).abs().max() > 0.05
    with Reference(adapted).active(adapted) as reference:
        torch.testing.assert_close(likelihood(reference, images), likelihood(base, images))
    with merged(adapted):
        adapted.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(likelihood(adapted, images), with_adapters)
    saved = Showo.from_pretrained(str(tmp_path / "saved"))
    torch.testing.assert_close(likelihood(saved, images), with_adapters, atol=1e-4, rtol=1e-4)


def test_a_fit_trains_adapters_only_and_exports_them_merged(shapes_checkpoint: Path, tmp_path: Path) -> None:
    model = SelfImprovement(
        Showo(str(shapes_checkpoint)),
        GRPO(kl=KLPenalty(beta=0.1)),
        [Likelihood()],
        rollout=RolloutConfig(2, image_sampling=ImageSampling(steps=4), answer_sampling=AnswerSampling(3)),
        lora=LoRA(("q_proj",), rank=2),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    )
    data = PromptsDataModule(ShapesPrompts(), 2, steps_per_epoch=3, num_val_prompts=6)
    settings = {"accelerator": "cpu", "max_epochs": 1, "limit_val_batches": 0, "enable_progress_bar": False}
    Trainer(default_root_dir=tmp_path, callbacks=[ExportPretrained()], **settings).fit(model, data)  # type: ignore
    trained = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("q_proj.lora_" in name for name in trained)
    base = Showo.from_pretrained(str(shapes_checkpoint)).state_dict()
    saved = Showo.from_pretrained(str(next(tmp_path.rglob("pretrained")))).state_dict()
    changed = {name for name, value in base.items() if not torch.equal(value, saved[name])}
    assert changed
    assert all(name.endswith("q_proj.weight") for name in changed)


def test_frozen_parameters_stay_frozen_after_the_reference_was_active(adapted: Showo) -> None:
    freeze_except(adapted, ["q_proj.lora"])
    before = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    with Reference(adapted).active(adapted):
        pass
    assert {name for name, parameter in adapted.named_parameters() if parameter.requires_grad} == before


def test_an_unknown_layer_is_refused(shapes_checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"no linear layer is called 'q_prog'; nearest: .*q_proj"):
        add_adapters(Showo.from_pretrained(str(shapes_checkpoint)), LoRA(("q_prog",)))
