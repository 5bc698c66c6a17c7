"""Trains the world's tiny Show-o on renderings: drawing from prompts, and seeing in cluttered scenes."""

import math
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from unirl.backbones.showo import Showo, ShowoConfig
from unirl.backbones.showo.checkpoint import phi, save
from unirl.backbones.showo.magvit import Magvit
from unirl.types import Example, Images
from unirl_shapes.examples import draw_example, true_answer, words
from unirl_shapes.pretrain.measure import measure
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import pretrain_tokenizer, wanted_codes
from unirl_shapes.scenes import Scene, clutter, near_miss, scene_for

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
DRAWN, SEEN = 24, 48
"""Prompts with renderings, and questions about renderings, in every training step."""


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
        draw, see = drawing_loss(backbone, rng), seeing_loss(backbone, rng)
        return draw + see, {"drawing_loss": draw.item(), "seeing_loss": see.item()}

    train("showo", backbone.transformer, loss, out, steps, lr=1e-3, evaluate=lambda: measure(backbone, 240))
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
    save(folder, config, phi(config, SIZES), magvit, tokenizer)
    return Showo.from_pretrained(str(folder))


def text_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, lower case: the vocabulary of the world's prompts, questions and answers."""
    vocabulary = {word: i for i, word in enumerate(["<|endoftext|>", "<unk>", *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="\x00")
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token="<unk>")


def drawing_loss(backbone: Showo, rng: Random) -> Tensor:
    """Cross-entropy of masked codes under their prompts; every tenth prompt is empty, for guidance."""
    examples = [draw_example(rng, "train") for _ in range(DRAWN)]
    scenes = [scene_for(e, rng, extras=rng.choice((0, 0, 0, 1, 2))) for e in examples]
    codes = wanted_codes(scenes).flatten(1)  # what the tokenizer makes of their renderings
    prompts = ["" if rng.random() < 0.1 else e.prompt for e in examples]
    generator = torch.Generator().manual_seed(rng.getrandbits(62))
    ratio = torch.cos(torch.rand(DRAWN, 1, generator=generator) * math.pi / 2)
    order = torch.rand(codes.shape, generator=generator).argsort(1).argsort(1)
    hidden_codes = order < (ratio * codes.shape[1]).round().clamp(min=1)
    prefix = backbone._prompt_prefix(prompts, 0.0)
    hidden = backbone.transformer.image_hidden(prefix, codes, ~hidden_codes)
    return F.cross_entropy(backbone.transformer.code_logits(hidden[hidden_codes]), codes[hidden_codes])


def seeing_loss(backbone: Showo, rng: Random) -> Tensor:
    """Negative log-likelihood of true answers about scenes that fit, nearly fit, or have nothing to do with it."""
    examples = [draw_example(rng, "train") for _ in range(SEEN)]
    scenes = [seen_scene(e, rng) for e in examples]
    answers = backbone.tokenize_answers([true_answer(e, s) for e, s in zip(examples, scenes, strict=True)])
    images = Images(wanted_codes(scenes).flatten(1))
    log_probs = backbone.answer_log_probs(images, [e.question for e in examples], answers)
    return -log_probs.sum() / answers.mask.sum()


def seen_scene(example: Example, rng: Random) -> Scene:
    """What a question is asked about: as often right as wrong, with up to four things that do not matter."""
    draw, extras = rng.random(), rng.choice((0, 0, 1, 2, 3, 4))
    if draw < 0.4:
        return scene_for(example, rng, extras)
    return near_miss(example, rng, extras) if draw < 0.8 else clutter(rng, rng.randint(0, 9))
