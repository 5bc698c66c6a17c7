"""Models of two sizes with random weights, and their prompts and questions."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from unirl.backbones.showo import Magvit, Showo, ShowoConfig, build_text_model, save_checkpoint
from unirl_shapes.examples import sample_example
from unirl_shapes.pretrain.showo import SIZES as TINY
from unirl_shapes.pretrain.showo import text_tokenizer, untrained
from unirl_shapes.pretrain.tokenizer import SIZES as TINY_IMAGE

SEED = 1
PROMPTS, ANSWERS, TOKENS = 4, 16, 16
STEPS, GUIDANCE = 16, 1.75  # the public settings at 256 px
MIDDLE = TINY | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 2048,
}


@dataclass(frozen=True)
class Case:
    """A model size and its inputs.

    Args:
        backbone: The model.
        prompts: What to generate.
        codes: Images to ask about, random codes.
        questions: What to ask, one for each image.
        plain_steps: Denoising steps the plain loop is timed over; each costs the same, so few are enough.
        plain_answers: Answers the plain loop is timed over; one at a time, so few are enough.

    Shapes:
        codes (B, N).
    """

    backbone: Showo
    prompts: list[str]
    codes: Tensor
    questions: list[str]
    plain_steps: int
    plain_answers: int


def make(size: str) -> Case:
    """The case of a size: `tiny` (the embedded world's) or `middle` (a twentieth of the public model's blocks)."""
    with TemporaryDirectory() as folder:
        backbone = (tiny if size == "tiny" else middle)(Path(folder))
    end = backbone.tokenizer.eos_token_id
    backbone.transformer.phi.lm_head.bias.data[end] = -1e4  # so no answer ends before its last token
    rng, generator = Random(SEED), torch.Generator().manual_seed(SEED)
    config = backbone.config
    codes = torch.randint(config.codebook_size, (ANSWERS, config.num_vq_tokens), generator=generator)
    prompts = [sample_example(rng, "train").prompt for _ in range(PROMPTS)]
    questions = [sample_example(rng, "train").question for _ in range(ANSWERS)]
    steps, answers = (STEPS, ANSWERS) if size == "tiny" else (4, 2)
    return Case(backbone.eval(), prompts, codes, questions, steps, answers)


def tiny(folder: Path) -> Showo:
    """Hidden 128, 4 layers, 16 codes, 24 text positions: the model of the embedded world, untrained."""
    return untrained(folder, Magvit(TINY_IMAGE), SEED)


def middle(folder: Path) -> Showo:
    """Hidden 512, 8 layers; ids, codes and text positions of the public 256 px model."""
    config = ShowoConfig()
    torch.manual_seed(SEED)
    image_tokenizer = Magvit(dataclasses.replace(TINY_IMAGE, z_channels=13))
    save_checkpoint(folder, config, build_text_model(config, MIDDLE), image_tokenizer, text_tokenizer())
    return Showo.from_pretrained(str(folder))
