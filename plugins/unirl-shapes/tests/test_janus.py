"""The world's tiny Janus: how it is made, in small steps, and what the shipped one can do."""

from pathlib import Path
from random import Random

import pytest
import torch
from transformers import JanusForConditionalGeneration, JanusProcessor, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.janus import Janus
from unirl.types import Images, ImageSampling
from unirl_shapes.examples import draw_example
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.pretrain import janus as pretrain
from unirl_shapes.pretrain import vq as tokenizer
from unirl_shapes.pretrain.lessons import Phase
from unirl_shapes.pretrain.measure import load, measure
from unirl_shapes.pretrain.tokenizer import wanted_codes
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import scene_for

SHIPPED = "unirl_shapes:checkpoints/janus"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Janus:
    return pretrain.untrained(tmp_path_factory.mktemp("janus"), JanusVQVAE(JanusVQVAEConfig(**tokenizer.SIZES)), 0)


@pytest.fixture(scope="module")
def shipped() -> Janus:
    backbone = load(SHIPPED).eval()
    assert isinstance(backbone, Janus)
    return backbone


def test_it_speaks_in_the_world_s_words(untrained: Janus) -> None:
    said = [untrained.chat.tokenizer.decode(row) for row in untrained.prompt_ids(["a photo of two red rings"])]
    assert said == ["<bos> user : a photo of two red rings assistant :"]
    before = untrained.image_context_ids
    (asked,) = untrained.question_ids(["where is the ring from the cross ?"])
    assert untrained.chat.tokenizer.decode(before) == "<bos> user : <begin_of_image>"
    assert "<unk>" not in untrained.chat.tokenizer.decode(asked)
    assert [untrained.decode_text(torch.tensor(row)) for row in untrained.answer_ids(["two rings"])] == ["two rings"]


def test_both_losses_fall(untrained: Janus) -> None:
    trained = [p for p in untrained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 3e-3)
    phase, drawing, seeing = Phase(12, 24), [], []
    for _ in range(8):
        draw = pretrain.drawing_loss(untrained, Random(0), phase)
        see = pretrain.seeing_loss(untrained, Random(0), phase)
        optimizer.zero_grad()
        (draw + see).backward()
        optimizer.step()
        drawing.append(draw.item())
        seeing.append(see.item())
    assert drawing[-1] < 0.8 * drawing[0]
    assert seeing[-1] < 0.8 * seeing[0]


def test_the_tokenizer_s_loss_falls() -> None:
    torch.manual_seed(0)
    vq = JanusVQVAE(JanusVQVAEConfig(**tokenizer.SIZES))
    optimizer, rng = torch.optim.AdamW(vq.parameters(), 3e-3), Random(0)
    scenes = [scene_for(draw_example(rng, "train"), rng, 3) for _ in range(4)]
    losses = []
    for _ in range(6):
        loss, _ = tokenizer.vq_loss(vq, scenes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_shipped_tokenizer_is_exact(shipped: Janus) -> None:
    rng = Random(0)
    examples = [draw_example(rng) for _ in range(60)]
    scenes = [scene_for(example, rng, rng.randrange(8)) for example in examples]
    codes = wanted_codes(scenes).flatten(1)
    assert ShapesJudge().verdicts(examples, shipped.decode(Images(codes))).all()
    encoded = shipped.transformer.base_model.vqmodel.encode(render_batch(scenes) * 2 - 1, return_dict=True).image_tokens
    assert torch.equal(encoded.view_as(codes), codes)


def test_the_shipped_model_draws_moderately_and_sees_well(shipped: Janus) -> None:
    figures = measure(shipped, 120, pretrain.BEST)
    assert 0.3 < figures["drawing"] < 0.7
    assert figures["seeing"] > 0.85


def test_the_shipped_model_is_transformers_own(shipped: Janus, tmp_path: Path) -> None:
    shipped.save_pretrained(tmp_path)
    model = JanusForConditionalGeneration.from_pretrained(tmp_path)
    processor = JanusProcessor.from_pretrained(tmp_path)
    message = [{"role": "user", "content": [{"type": "text", "text": "a photo of a red circle"}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(text=[text], generation_mode="image", return_tensors="pt")
    codes = model.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=2.5)
    sampling = ImageSampling(guidance=1.5, temperature=0.0)
    assert torch.equal(codes, shipped.sample_images(["a photo of a red circle"], sampling).codes)
