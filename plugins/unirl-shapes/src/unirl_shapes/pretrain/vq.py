"""Trains the image tokenizer of the world's Janus: transformers' own class, on codes that mean one thing each."""

from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.showo import codes_to_bits
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.pretrain.tokenizer import wanted_codes
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, clutter
from unirl_shapes.vocabulary import GRID

BITS = 7
SIZES = {
    "embed_dim": BITS + 1,
    "num_embeddings": 2**BITS,
    "latent_channels": 32,
    "base_channels": 32,  # the class's norms have 32 groups
    "channel_multiplier": [1, 1, 1, 1, 4],
    "num_res_blocks": 0,
    "num_patches": GRID,
    "projection_dim": 128,
    "image_token_embed_dim": 128,
}


def pretrain_vq(out: Path, steps: int, seed: int) -> JanusVQVAE:
    """Train the tokenizer, or go on where a killed run stopped.

    Args:
        out: Folder of the log and the state.
        steps: Training steps of 16 pictures.
        seed: Of weights and pictures.
    """
    torch.manual_seed(seed)
    vq = JanusVQVAE(JanusVQVAEConfig(**SIZES))
    bits = codes_to_bits(torch.arange(2**BITS)[None, None], BITS)[0, :, 0].T
    vq.quantize.embedding.weight.data = torch.cat((torch.ones(2**BITS, 1), bits), 1)  # like codes, like entries
    vq.quantize.requires_grad_(False)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} vq {step}")
        return vq_loss(vq, [clutter(rng, rng.randint(0, 12)) for _ in range(16)])

    train("vq", vq, loss, out, steps, lr=3e-3, decay=max(1, steps // 2))
    return vq.requires_grad_(False).eval()


def vq_loss(vq: Any, scenes: list[Scene]) -> tuple[Tensor, Metrics]:
    """The encoder learns the code that each cell's content was given; the decoder learns to paint it."""
    pixels, codes = render_batch(scenes, 64) * 2 - 1, wanted_codes(scenes).flatten(1)
    said = vq.quant_conv(vq.encoder(pixels)).flatten(2).mT
    distances = torch.cdist(said, vq.quantize.embedding.weight.expand(len(said), -1, -1)).square()
    naming = F.cross_entropy(-distances.flatten(0, 1), codes.flatten())
    drawn = (codes != 0).float().view(-1, 1, GRID, GRID).repeat_interleave(16, 2).repeat_interleave(16, 3)
    painting = ((vq.decode(codes) - pixels).abs() * (0.5 + 1.5 * drawn)).mean()  # most of a picture is empty
    wrong = (distances.argmin(-1) != codes).float().mean()
    return naming + 4 * painting, {"naming": naming.item(), "painting": painting.item(), "wrong": wrong.item()}
