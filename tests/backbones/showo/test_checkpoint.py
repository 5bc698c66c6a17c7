"""Saving, loading, and building without files."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from unirl.backbones.showo import Showo
from unirl.types import AnswerSampling, ImageSampling

PROMPTS = ["a photo of three blue square", "", "two circle", "two circle"]
GUIDED = ImageSampling(steps=5, guidance=2.0, temperature=0.8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_saved_and_loaded_again(backbone: Showo, tmp_path: Path) -> None:
    backbone.save_pretrained(tmp_path / "saved")
    other = Showo.from_pretrained(str(tmp_path / "saved"))
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert all(name.startswith("showo.") for name in file.keys())  # noqa: SIM118 - no mapping
    images, repeated = (model.sample_images(PROMPTS, GUIDED, seeded()) for model in (backbone, other))
    assert torch.equal(images.codes, repeated.codes)
    assert torch.equal(images.log_probs, repeated.log_probs)
    assert torch.equal(backbone.decode(images), other.decode(images))
    ask = (["how many circle are there ?"] * 4, AnswerSampling(6, 1.0))
    output, repeated = (model.sample_answers(images, *ask, seeded()) for model in (backbone, other))
    assert torch.equal(output.log_probs, repeated.log_probs)
    assert output.text == repeated.text


@pytest.mark.parametrize(("name", "codes"), [("showlab/show-o", 256), ("showlab/show-o-512x512", 1024)])
def test_public_sizes_without_files(name: str, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a meta build asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbone = Showo(name)
    backbone.build(meta=True)
    assert {p.device.type for p in backbone.parameters()} == {"meta"}
    assert 1.4e9 < sum(p.numel() for p in backbone.transformer.parameters()) < 1.5e9
    assert backbone.config.num_vq_tokens == codes
    assert any(isinstance(module, backbone.blocks) for module in backbone.modules())


def test_building_twice_keeps_the_weights_and_the_tokenizer_stays_in_eval_mode(load: Callable[..., Showo]) -> None:
    backbone = load()
    before = backbone.transformer
    backbone.build()
    assert backbone.transformer is before
    backbone.train()
    assert backbone.transformer.training
    assert not backbone.image_tokenizer.training
