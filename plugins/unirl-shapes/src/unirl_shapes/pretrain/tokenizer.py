"""Trains the world's MAGVIT-v2: renderings to codes that mean one thing each, and back."""

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.showo import Magvit, MagvitConfig, codes_to_bits
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, clutter
from unirl_shapes.vocabulary import CELLS, COLORS, GRID, SHAPES

SIZES = MagvitConfig(
    ch=8,
    encoder_ch_mult=(1, 2, 2, 4, 4),
    decoder_ch_mult=(1, 2, 2, 4, 4),
    encoder_blocks=(1, 1, 1, 1, 1),
    decoder_blocks=(1, 1, 1, 1, 1),
    z_channels=7,
    groups=4,
)
_EMPTY = 0
_SOMETHING = 64
"""The first bit says whether something is in the cell, three more its shape and the last three its color."""


def pretrain_tokenizer(out: Path, steps: int, seed: int) -> Magvit:
    """Train the tokenizer, or go on where a killed run stopped.

    Args:
        out: Folder of the log and the state.
        steps: Training steps of 16 pictures.
        seed: Of weights and pictures.
    """
    torch.manual_seed(seed)
    magvit = Magvit(SIZES)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} tokenizer {step}")
        return tokenizer_loss(magvit, [clutter(rng, rng.randint(0, 12)) for _ in range(16)])

    train("tokenizer", magvit, loss, out, steps, lr=3e-3, decay=max(1, steps // 2))
    return magvit.requires_grad_(False).eval()


def tokenizer_loss(magvit: Magvit, scenes: list[Scene]) -> tuple[Tensor, Metrics]:
    """The encoder learns the code that each cell's content was given; the decoder learns to paint it.

    Left to find codes by itself, a tokenizer of this size either merges shapes or spends many codes on the empty
    background; both make drawing far harder to learn.
    """
    pixels = render_batch(scenes, 64) * 2 - 1
    bits = codes_to_bits(wanted_codes(scenes), magvit.config.z_channels)
    said = magvit.encoder(pixels)
    naming = F.binary_cross_entropy_with_logits(said, (bits > 0).float())
    drawn = (wanted_codes(scenes)[:, None] != _EMPTY).float().repeat_interleave(16, 2).repeat_interleave(16, 3)
    painting = ((magvit.decoder(bits) - pixels).abs() * (0.5 + 1.5 * drawn)).mean()  # most of a picture is empty
    wrong = ((said > 0) != (bits > 0)).any(1).float().mean()
    return naming + 4 * painting, {"naming": naming.item(), "painting": painting.item(), "wrong": wrong.item()}


def wanted_codes(scenes: list[Scene]) -> Tensor:
    """The code of every cell: 0 where it is empty.

    Shapes:
        returns (B, 4, 4) int64.
    """
    codes = torch.full((len(scenes), CELLS), _EMPTY)
    shapes, colors = list(SHAPES), list(COLORS)
    for row, scene in enumerate(scenes):
        for thing in scene:
            codes[row, thing.cell] = _SOMETHING + 8 * shapes.index(thing.shape) + colors.index(thing.color)
    return codes.view(-1, GRID, GRID)
