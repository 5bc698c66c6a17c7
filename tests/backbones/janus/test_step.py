"""The compiled step samples the same codes and is compiled once."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones.janus.tiny import save
from torch._dynamo.utils import counters

from unirl.backbones import mixins
from unirl.backbones.janus import Janus
from unirl.backbones.llama import PREFIX_MULTIPLE
from unirl.backbones.lora import LoRA, add_adapters
from unirl.types import Images, ImageSampling

PROMPTS = ["a photo of three blue square", "two circle", "two circle", "red"]
PLAIN = ImageSampling(guidance=0.0)
GUIDED = ImageSampling(guidance=4.0, temperature=0.8)
GREEDY = ImageSampling(guidance=4.0, temperature=0.0)


def generate(backbone: Janus, prompts: list[str], sampling: ImageSampling, compiled: bool) -> Images:
    backbone.compiled = compiled
    return backbone.sample_images(prompts, sampling, torch.Generator().manual_seed(1))


def check(backbone: Janus, prompts: list[str], sampling: ImageSampling) -> Images:
    """Both ways sample the same images."""
    one, other = (generate(backbone, prompts, sampling, compiled) for compiled in (False, True))
    assert torch.equal(one.codes, other.codes)
    torch.testing.assert_close(one.log_probs, other.log_probs, atol=1e-4, rtol=0)
    return one


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed shapes without the compiler: quick, so many cases can be tried."""
    monkeypatch.setattr(mixins, "_compiled_step", lambda: mixins._sample_next)


@pytest.mark.usefixtures("interpreted")
@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, GREEDY], ids=["plain", "guided", "greedy"])
@pytest.mark.parametrize("changes", [{}, {"seed": 2, "kv_heads": 2}, {"seed": 3, "size": 48}], ids=str)
def test_static_shapes_sample_the_same(tmp_path: Path, changes: dict[str, Any], sampling: ImageSampling) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path, **changes))).eval()
    for prompts in (PROMPTS, PROMPTS[:1], [f"{'red ' * PREFIX_MULTIPLE}circle", "red"]):
        assert len(check(backbone, prompts, sampling).codes.unique()) > 4


@pytest.mark.usefixtures("interpreted")
def test_adapters_are_used_by_both_decoders(tmp_path: Path) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path))).eval()
    bare = check(backbone, PROMPTS, GREEDY)
    add_adapters(backbone.transformer, LoRA(("q_proj", "v_proj", "down_proj"), rank=2))
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert not torch.equal(check(backbone, PROMPTS, GREEDY).codes, bare.codes)


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_a_step_is_compiled_once_and_uses_new_weights(tmp_path: Path) -> None:
    torch.compiler.reset()
    counters.clear()
    backbone = Janus(str(save(tmp_path)), compile=True)
    backbone.build()
    first = check(backbone.eval(), PROMPTS, GUIDED)
    assert counters["stats"]["unique_graphs"] == 1
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.mul_(1.2)
    other = check(backbone, PROMPTS[::-1], GUIDED)
    check(backbone, ["a photo of a red circle"] * 4, GUIDED)
    assert not torch.equal(other.codes.flip(0), first.codes)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]  # nothing in the step waits for the device
