"""Pre-training of the tiny Show-o on rendered images: generation from prompts, and answering questions."""

import math
from functools import partial
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl import AnswerSampling, Images, ImageSampling, SamplingConfig
from unirl.backbones.showo import Magvit, Showo, ShowoConfig, build_text_model, save_checkpoint
from unirl_shapes.pretrain.continued import Continuation, Trained, continue_pretraining, copy_weights
from unirl_shapes.pretrain.data import Phase, combined_loss, generation_batch, text_tokenizer, understanding_batch
from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.tokenizer import pretrain_tokenizer, scene_codes
from unirl_shapes.vocabulary import CATEGORIES

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
BEST_SAMPLING = ImageSampling(steps=16, guidance=0.25, temperature=0.6, confidence_noise=1e9)
"""Best setting of the finished model on training prompts, by the sweep in docs/results.md."""
SAMPLING_CONFIG = SamplingConfig(BEST_SAMPLING, AnswerSampling(max_tokens=6))
"""How the finished model is sampled by default, as configs/showo_grpo.yaml measures it."""
FOCUS_AFTER = 2000
"""From this step on, most questions are about position, which is the most difficult, or about rows and columns."""
GENERATION_EVERY = 2
"""From then on, generation is trained every so many steps: understanding is to be better than generation."""
CONTINUATION = Continuation(
    word_steps=1000,
    weight_noise=0.48,
    lr=3e-4,
    category_weights={"position": 4.0, "counting": 4.0, "complex": 4.0},
    num_location=8,
    relation_steps=3500,
    relation_noise=0.4,
)
"""What makes room for self-improvement: plugins/unirl-shapes/docs/showo.md has the figures."""


def pretrain_showo(out: Path, steps: int, tokenizer_steps: int, seed: int, init: str | None = None) -> Showo:
    """Train the tiny Show-o, resuming where an earlier run stopped.

    Args:
        out: Folder of logs and training states; the finished checkpoint is `out/showo`.
        steps: Training steps of the transformer, before pre-training is continued.
        tokenizer_steps: Training steps of the image tokenizer.
        seed: Seed of weights, scenes and masks.
        init: A checkpoint whose pre-training is continued; it replaces these steps. Its vocabulary may be smaller.
    """
    out.mkdir(parents=True, exist_ok=True)
    backbone = _from_scratch(out, steps, tokenizer_steps, seed) if init is None else _from_checkpoint(out, init, seed)
    backbone.sampling_config = SAMPLING_CONFIG
    losses = partial(understanding_loss, backbone), partial(generation_loss, backbone)
    layers = backbone.transformer.get_submodule("phi.model.layers")

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST_SAMPLING, categories=(*CATEGORIES, "complex"))

    trained = Trained("showo", backbone.transformer, [layers], *losses, evaluate)
    continue_pretraining(trained, CONTINUATION, out, seed)
    backbone.save_pretrained(out / "showo")
    return backbone


def _from_scratch(out: Path, steps: int, tokenizer_steps: int, seed: int) -> Showo:
    """Train image tokenizer and transformer."""
    backbone = untrained(out / "untrained", pretrain_tokenizer(out, tokenizer_steps, seed), seed)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} showo {step}")
        return combined_loss(
            rng, phase_of(step), partial(understanding_loss, backbone), partial(generation_loss, backbone)
        )

    def evaluate() -> Metrics:
        return measure(backbone, 360, BEST_SAMPLING)

    train("showo", backbone.transformer, loss, out, steps, lr=1e-3, decay=1000, evaluate=evaluate)
    return backbone


def _from_checkpoint(out: Path, init: str, seed: int) -> Showo:
    """A trained model, with the words of today."""
    source = Showo.from_pretrained(init)
    backbone = untrained(out / "untrained", source.image_tokenizer, seed)
    copy_weights(source.transformer, source.tokenizer, backbone.transformer, backbone.tokenizer)
    return backbone


def untrained(folder: Path, magvit: Magvit, seed: int) -> Showo:
    """A tiny Show-o with random weights and a given image tokenizer.

    Args:
        folder: Where a checkpoint in the public format is saved.
        magvit: The image tokenizer.
        seed: Seed of the weights.
    """
    tokenizer = text_tokenizer()
    text_size, codes = len(tokenizer), 2**magvit.config.z_channels
    config = ShowoConfig(
        vocab_size=text_size + 10 + codes + 1,
        llm_vocab_size=text_size,
        codebook_size=codes,
        num_vq_tokens=16,
        mask_token_id=text_size + 10 + codes,
        max_text_len=24,
    )
    torch.manual_seed(seed)
    save_checkpoint(folder, config, build_text_model(config, SIZES), magvit, tokenizer)
    return Showo.from_pretrained(str(folder))


def phase_of(step: int) -> Phase:
    """What a step trains: both tasks, later mostly understanding.

    Args:
        step: Number of the step.
    """
    if step < FOCUS_AFTER:
        return Phase(24, 48)
    return Phase(16 if step % GENERATION_EVERY == 0 else 0, 48, {"position": 6.0}, num_location=24)


def generation_loss(backbone: Showo, rng: Random, phase: Phase) -> Tensor:
    """Cross-entropy of masked codes given their prompts, of which none is left out.

    Args:
        backbone: The model.
        rng: The only source of randomness.
        phase: Size of the batch.
    """
    prompts, scenes = generation_batch(rng, phase)
    codes = scene_codes(scenes).flatten(1)  # equal to the tokenizer's codes of the rendered images
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    ratio = torch.cos(torch.rand(phase.num_generation, 1, generator=generator, dtype=torch.float32) * math.pi / 2)
    rank = torch.rand(codes.shape, generator=generator, dtype=torch.float32)
    masked = rank.argsort(1).argsort(1) < (ratio * codes.shape[1]).round().clamp(min=1)
    hidden = backbone.transformer.image_hidden(backbone.prompt_prefix(prompts, 0.0), codes, ~masked)
    return F.cross_entropy(backbone.transformer.code_logits(hidden[masked]), codes[masked])


def understanding_loss(backbone: Showo, rng: Random, phase: Phase) -> Tensor:
    """Negative log-likelihood of true answers about scenes that are correct, nearly correct, or random.

    Args:
        backbone: The model.
        rng: The only source of randomness.
        phase: Size and content of the batch.
    """
    scenes, questions, true_answers = understanding_batch(rng, phase)
    answers = backbone.tokenize_answers(true_answers)
    log_probs = backbone.answer_log_probs(Images(scene_codes(scenes).flatten(1)), questions, answers)
    return -log_probs.sum() / answers.mask.sum()
