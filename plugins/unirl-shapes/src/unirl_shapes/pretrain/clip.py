"""Trains the world's tiny CLIP on renderings: which caption belongs to which picture?"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import processors
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from unirl_shapes.examples import Example, draw_example, true_answer
from unirl_shapes.pretrain.lessons import text_tokenizer
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, near_miss, scene_for

WIDTH = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
PAIRS = 64
"""Captions in a step; each with a picture that shows it and one that nearly does."""
LENGTH = 24
SHIPPED_AT = "unirl_shapes:checkpoints/clip"
MEAN, STD = (0.8, 0.8, 0.8), (0.3, 0.3, 0.3)


def pretrain_clip(out: Path, steps: int, seed: int) -> CLIPModel:
    """Train the tiny CLIP, continuing where a killed run stopped.

    Args:
        out: Folder of the log and the state; the finished checkpoint is `out/clip`.
        steps: Training steps.
        seed: Of weights and scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer()
    torch.manual_seed(seed)
    model = CLIPModel(tiny_config(tokenizer))

    def loss(step: int) -> tuple[Tensor, Metrics]:
        value = contrastive_loss(model, tokenizer, Random(f"{seed} clip {step}"))
        return value, {"loss": value.item()}

    train("clip", model, loss, out, steps, lr=1e-3, evaluate=lambda: {"retrieval": retrieval(model, tokenizer)})
    model.eval().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    size = {"height": 64, "width": 64}
    CLIPImageProcessor(image_mean=MEAN, image_std=STD, size=size, do_center_crop=False).save_pretrained(out / "clip")
    return model


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """The world's words, with the end of text that CLIP's text model reads its feature from."""
    tokenizer = text_tokenizer()
    end = ("<|endoftext|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A <|endoftext|>", special_tokens=[end])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = LENGTH
    return tokenizer


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> CLIPConfig:
    """Numbers small enough for a laptop; 64 px, and the end of text where the tokenizer has it."""
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    text = WIDTH | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "projection_dim": 64}
    vision = WIDTH | {"image_size": 64, "patch_size": 16, "projection_dim": 64}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)


def contrastive_loss(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, rng: Random) -> Tensor:
    """Each caption must find its picture, and each picture its caption, among those that do not belong together.

    Pairs that belong together by chance count neither way.

    Args:
        model: The CLIP.
        tokenizer: Of captions.
        rng: Where chance comes from.
    """
    examples = [draw_example(rng) for _ in range(PAIRS)]
    scenes = [scene_for(e, rng, rng.choice((0, 0, 1, 2))) for e in examples]
    misses = [near_miss(e, rng, rng.choice((0, 0, 1, 2))) for e in examples]
    logits = similarity(model, tokenizer, [e.prompt for e in examples], render_batch(scenes + misses))
    logits = logits * model.logit_scale.exp()
    true = torch.tensor([[shows(e, scene) for scene in scenes + misses] for e in examples])
    own = torch.eye(PAIRS, 2 * PAIRS, dtype=torch.bool)
    logits = logits.masked_fill(true & ~own, float("-inf"))
    right = torch.arange(PAIRS)
    by_caption = torch.nn.functional.cross_entropy(logits, right)
    return (by_caption + torch.nn.functional.cross_entropy(logits[:, :PAIRS].T, right)) / 2


def similarity(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, captions: Sequence[str], pixels: Tensor) -> Tensor:
    """Cosine of each caption and each picture.

    Shapes:
        pixels (P, 3, H, W) in [0, 1]; returns (C, P).
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    tokens = tokenizer(list(captions), padding=True, return_tensors="pt")
    out = model(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=(pixels - mean) / std
    )
    return out.text_embeds @ out.image_embeds.T


@torch.no_grad()
def retrieval(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, count: int = 300, among: int = 32) -> float:
    """Share of renderings of held-out prompts whose caption is found among any captions that are not true of them.

    Args:
        model: The CLIP.
        tokenizer: Of captions.
        count: Renderings.
        among: Captions, the right one included.
    """
    rng, found = Random("retrieval"), 0
    for _ in range(count):
        example = draw_example(rng, "held_out")
        scene = scene_for(example, rng, rng.randrange(3))
        captions = {example.prompt: None}
        while len(captions) < among:
            other = draw_example(rng)
            captions |= {} if shows(other, scene) else {other.prompt: None}
        found += similarity(model, tokenizer, list(captions), render_batch([scene])).argmax().item() == 0
    return found / count


def shows(example: Example, scene: Scene) -> bool:
    """Whether a scene shows what an example asks for; "left" is right where the thing is left and above."""
    truth = true_answer(example, scene)
    return truth == example.answer or (example.category == "position" and example.answer in truth.split())
