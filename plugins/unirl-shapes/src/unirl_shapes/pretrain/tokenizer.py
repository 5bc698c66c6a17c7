"""Pre-training of the tiny MAGVIT-v2, the image tokenizer of Show-o, with one code for each content of a cell."""

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.showo import Magvit, MagvitConfig, codes_to_bits
from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, random_scene
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
_OCCUPIED = 64
"""The first bit of a code is 1 for an occupied cell, the next three encode the shape, the last three the color."""


def pretrain_tokenizer(out: Path, steps: int, seed: int) -> Magvit:
    """Train the tokenizer, resuming where an earlier run stopped.

    Args:
        out: Folder of the log and of the training state.
        steps: Training steps of 16 images.
        seed: Seed of weights and images.
    """
    torch.manual_seed(seed)
    magvit = Magvit(SIZES)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} tokenizer {step}")
        return tokenizer_loss(magvit, [random_scene(rng, rng.randint(0, 12)) for _ in range(16)])

    train("tokenizer", magvit, loss, out, steps, lr=3e-3, decay=max(1, steps // 2))
    return magvit.requires_grad_(False).eval()


def tokenizer_loss(magvit: Magvit, scenes: list[Scene]) -> tuple[Tensor, Metrics]:
    """Loss of the encoder, for predicting the given code of each cell, and of the decoder, for reconstruction.

    A tokenizer of this size that learns its codes by itself merges shapes, or uses many codes for the background. Both
    make generation much more difficult.

    Args:
        magvit: The image tokenizer.
        scenes: A batch of scenes.
    """
    pixels = render_batch(scenes, 64) * 2 - 1
    bits = codes_to_bits(scene_codes(scenes), magvit.config.z_channels)
    logits = magvit.encoder(pixels)
    encoding = F.binary_cross_entropy_with_logits(logits, (bits > 0).float())
    occupied = (scene_codes(scenes)[:, None] != _EMPTY).float().repeat_interleave(16, 2).repeat_interleave(16, 3)
    reconstruction = ((magvit.decoder(bits) - pixels).abs() * (0.5 + 1.5 * occupied)).mean()  # most cells are empty
    error = ((logits > 0) != (bits > 0)).any(1).float().mean()
    metrics = {"encoding": encoding.item(), "reconstruction": reconstruction.item(), "error": error.item()}
    return encoding + 4 * reconstruction, metrics


def scene_codes(scenes: list[Scene]) -> Tensor:
    """The code of each cell, 0 for empty cells.

    Args:
        scenes: Any scenes.

    Shapes:
        returns (B, 4, 4) int64.
    """
    codes = torch.full((len(scenes), CELLS), _EMPTY)
    shapes, colors = list(SHAPES), list(COLORS)
    for row, scene in enumerate(scenes):
        for item in scene:
            codes[row, item.cell] = _OCCUPIED + 8 * shapes.index(item.shape) + colors.index(item.color)
    return codes.view(-1, GRID, GRID)
