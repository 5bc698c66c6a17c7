"""Trains the world's tiny Show-o on renderings: drawing from prompts, and seeing in cluttered scenes."""

import math
from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.showo import Magvit, Showo, ShowoConfig, build_text_model, save_checkpoint
from unirl.types import Images, ImageSampling
from unirl_shapes.pretrain.lessons import Phase, both_losses, drawing_lesson, seeing_lesson, text_tokenizer
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import pretrain_tokenizer, wanted_codes

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "partial_rotary_factor": 0.5,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
BEST = ImageSampling(steps=16, guidance=0.25, temperature=0.6, confidence_noise=1e9)
"""Where the finished model draws training prompts best, by the sweep in docs/results.md."""
FOCUS_AFTER = 2000
"""From this step on it is mostly position that is asked about, by far the last to be learnt, and rows and columns."""
DRAWN_EVERY = 2
"""From then on only every so many steps train drawing: the model shall see better than it draws."""


def pretrain_showo(out: Path, steps: int, tokenizer_steps: int, seed: int) -> Showo:
    """Train the tiny Show-o, continuing where a killed run stopped.

    Args:
        out: Folder of logs and states; the finished checkpoint is `out/showo`.
        steps: Training steps of the transformer.
        tokenizer_steps: Training steps of the image tokenizer.
        seed: Of weights, scenes and masks.
    """
    out.mkdir(parents=True, exist_ok=True)
    backbone = untrained(out / "untrained", pretrain_tokenizer(out, tokenizer_steps, seed), seed)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} showo {step}")
        return both_losses(rng, phase_of(step), partial(seeing_loss, backbone), partial(drawing_loss, backbone))

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST)

    train("showo", backbone.transformer, loss, out, steps, lr=1e-3, decay=1000, evaluate=evaluate)
    backbone.save_pretrained(out / "showo")
    return backbone


def untrained(folder: Path, magvit: Magvit, seed: int) -> Showo:
    """A tiny Show-o with fresh weights, by way of a checkpoint in the public format."""
    tokenizer = text_tokenizer()
    texts, codes = len(tokenizer), 2**magvit.config.z_channels
    config = ShowoConfig(
        vocab_size=texts + 10 + codes + 1,
        llm_vocab_size=texts,
        codebook_size=codes,
        num_vq_tokens=16,
        mask_token_id=texts + 10 + codes,
        max_text_len=24,
    )
    torch.manual_seed(seed)
    save_checkpoint(folder, config, build_text_model(config, SIZES), magvit, tokenizer)
    return Showo.from_pretrained(str(folder))


def phase_of(step: int) -> Phase:
    """What a step trains: both tasks alike, then seeing, with a little drawing lest it be forgotten."""
    if step < FOCUS_AFTER:
        return Phase(24, 48)
    return Phase(16 if step % DRAWN_EVERY == 0 else 0, 48, {"position": 6.0}, located=24)


def drawing_loss(backbone: Showo, rng: Random, phase: Phase) -> Tensor:
    """Cross-entropy of masked codes under their prompts. No prompt is empty; guidance helps all the same.

    Args:
        backbone: The model.
        rng: Where chance comes from.
        phase: How many.
    """
    prompts, scenes = drawing_lesson(rng, phase.drawn)
    codes = wanted_codes(scenes).flatten(1)  # what the tokenizer makes of their renderings
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    ratio = torch.cos(torch.rand(phase.drawn, 1, generator=generator) * math.pi / 2)
    rank = torch.rand(codes.shape, generator=generator)
    masked = rank.argsort(1).argsort(1) < (ratio * codes.shape[1]).round().clamp(min=1)
    hidden = backbone.transformer.image_hidden(backbone.prompt_prefix(prompts, 0.0), codes, ~masked)
    return F.cross_entropy(backbone.transformer.code_logits(hidden[masked]), codes[masked])


def seeing_loss(backbone: Showo, rng: Random, phase: Phase) -> Tensor:
    """Negative log-likelihood of true answers about scenes that fit, nearly fit, or have nothing to do with it.

    Args:
        backbone: The model.
        rng: Where chance comes from.
        phase: How many, and about what.
    """
    scenes, questions, truths = seeing_lesson(rng, phase)
    answers = backbone.tokenize_answers(truths)
    log_probs = backbone.answer_log_probs(Images(wanted_codes(scenes).flatten(1)), questions, answers)
    return -log_probs.sum() / answers.mask.sum()
