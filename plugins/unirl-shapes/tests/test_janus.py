"""Pre-training of the tiny Janus in a few steps, and the shipped checkpoint."""

from pathlib import Path
from random import Random

import pytest
import torch
from transformers import JanusForConditionalGeneration, JanusProcessor, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl import Images, ImageSampling
from unirl.backbones.janus import Janus
from unirl_shapes.examples import sample_example
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.pretrain import janus as pretrain
from unirl_shapes.pretrain import vq as tokenizer
from unirl_shapes.pretrain.data import Phase
from unirl_shapes.pretrain.measure import load, measure
from unirl_shapes.pretrain.tokenizer import scene_codes
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


def test_prompts_and_questions_are_in_the_vocabulary(untrained: Janus) -> None:
    texts = [untrained.chat.tokenizer.decode(row) for row in untrained.prompt_ids(["a photo of two red rings"])]
    assert texts == ["<bos> user : a photo of two red rings assistant :"]
    context = untrained.image_context_ids
    (question,) = untrained.question_ids(["where is the ring from the cross ?"])
    assert untrained.chat.tokenizer.decode(context) == "<bos> user : <begin_of_image>"
    assert "<unk>" not in untrained.chat.tokenizer.decode(question)
    assert [untrained.decode_text(torch.tensor(row)) for row in untrained.answer_ids(["two rings"])] == ["two rings"]


def test_both_losses_decrease(untrained: Janus) -> None:
    trained = [p for p in untrained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 3e-3)
    phase, generation_losses, understanding_losses = Phase(12, 24), [], []
    for _ in range(8):
        generation = pretrain.generation_loss(untrained, Random(0), phase)
        understanding = pretrain.understanding_loss(untrained, Random(0), phase)
        optimizer.zero_grad()
        (generation + understanding).backward()
        optimizer.step()
        generation_losses.append(generation.item())
        understanding_losses.append(understanding.item())
    assert generation_losses[-1] < 0.8 * generation_losses[0]
    assert understanding_losses[-1] < 0.8 * understanding_losses[0]


def test_the_loss_of_the_tokenizer_decreases() -> None:
    torch.manual_seed(0)
    vq = JanusVQVAE(JanusVQVAEConfig(**tokenizer.SIZES))
    optimizer, rng = torch.optim.AdamW(vq.parameters(), 3e-3), Random(0)
    scenes = [scene_for(sample_example(rng, "train"), rng, 3) for _ in range(4)]
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
    examples = [sample_example(rng) for _ in range(60)]
    scenes = [scene_for(example, rng, rng.randrange(8)) for example in examples]
    codes = scene_codes(scenes).flatten(1)
    assert ShapesJudge().verdicts(examples, shipped.decode(Images(codes))).all()
    encoded = shipped.transformer.base_model.vqmodel.encode(render_batch(scenes) * 2 - 1, return_dict=True).image_tokens
    assert torch.equal(encoded.view_as(codes), codes)


def test_generation_and_understanding_of_the_shipped_model(shipped: Janus) -> None:
    accuracy = measure(shipped, 120, pretrain.BEST_SAMPLING)
    assert 0.3 < accuracy["generation"] < 0.7
    assert 0.75 < accuracy["understanding"] < 0.95  # room to learn


def test_the_model_finds_the_best_of_four_images(shipped: Janus) -> None:
    first, best = (measure(shipped, 48, pretrain.BEST_SAMPLING, best_of=count)["generation"] for count in (1, 4))
    assert best > first + 0.1


def test_the_shipped_model_equals_that_of_transformers(shipped: Janus, tmp_path: Path) -> None:
    shipped.save_pretrained(tmp_path)
    model = JanusForConditionalGeneration.from_pretrained(tmp_path)
    processor = JanusProcessor.from_pretrained(tmp_path)
    message = [{"role": "user", "content": [{"type": "text", "text": "a photo of a red circle"}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    inputs = processor(text=[text], generation_mode="image", return_tensors="pt")
    codes = model.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=2.5)
    sampling = ImageSampling(guidance=1.5, temperature=0.0)
    assert torch.equal(codes, shipped.sample_images(["a photo of a red circle"], sampling).codes)
