"""Adapters on a Janus: generation goes through them, and the exported model has them merged."""

from pathlib import Path

import pytest
import torch
from transformers import JanusForConditionalGeneration

from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA, add_adapters, merged
from unirl.types import ImageSampling

pytest.importorskip("peft", reason="the extra `lora` is not installed")
PROMPTS, SAMPLING = ["a photo", "two circle"], ImageSampling(guidance=1.0)


@pytest.fixture
def adapted(checkpoint: Path) -> Janus:
    backbone = Janus.from_pretrained(str(checkpoint)).eval()
    add_adapters(backbone, LoRA(("q_proj", "v_proj", "down_proj"), rank=2))
    torch.manual_seed(0)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def test_generation_uses_the_adapters(adapted: Janus, backbone: Janus) -> None:
    images = adapted.sample_images(PROMPTS, SAMPLING, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        adapted.image_log_probs(PROMPTS, images, SAMPLING)[0], images.log_probs, atol=1e-4, rtol=0
    )
    plain = backbone.image_log_probs(PROMPTS, images, SAMPLING)[0]
    assert (plain - images.log_probs).abs().max() > 0.1


def test_the_exported_model_has_them_merged(adapted: Janus, tmp_path: Path) -> None:
    images = adapted.sample_images(PROMPTS, SAMPLING, torch.Generator().manual_seed(0))
    with merged(adapted):
        adapted.save_pretrained(tmp_path)
    reloaded = Janus.from_pretrained(str(tmp_path)).eval()
    torch.testing.assert_close(
        reloaded.image_log_probs(PROMPTS, images, SAMPLING)[0], images.log_probs, atol=1e-4, rtol=0
    )
    names = {name for name, _ in reloaded.transformer.janus.named_parameters()}
    assert names == {name for name, _ in JanusForConditionalGeneration.from_pretrained(tmp_path).named_parameters()}
