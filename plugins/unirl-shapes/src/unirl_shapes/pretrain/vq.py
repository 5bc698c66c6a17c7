"""Pre-training of the image tokenizer of the tiny Janus, with one code for each content of a cell."""

from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.showo import codes_to_bits
from unirl_shapes.pretrain.loop import Metrics, train
from unirl_shapes.pretrain.tokenizer import scene_codes
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import Scene, random_scene
from unirl_shapes.vocabulary import GRID

BITS = 7
SIZES = {
    "embed_dim": BITS + 1,
    "num_embeddings": 2**BITS,
    "latent_channels": 32,
    "base_channels": 32,  # the norms of the class have 32 groups
    "channel_multiplier": [1, 1, 1, 1, 4],
    "num_res_blocks": 0,
    "num_patches": GRID,
    "projection_dim": 128,
    "image_token_embed_dim": 128,
}


def pretrain_vq(out: Path, steps: int, seed: int) -> JanusVQVAE:
    """Train the tokenizer, resuming where an earlier run stopped.

    Args:
        out: Folder of the log and of the training state.
        steps: Training steps of 16 images.
        seed: Seed of weights and images.
    """
    torch.manual_seed(seed)
    vq = JanusVQVAE(JanusVQVAEConfig(**SIZES))
    bits = codes_to_bits(torch.arange(2**BITS)[None, None], BITS)[0, :, 0].T
    vq.quantize.embedding.weight.data = torch.cat(
        (torch.ones(2**BITS, 1, dtype=torch.float32), bits), 1
    )  # similar codes have similar entries
    vq.quantize.requires_grad_(False)

    def loss(step: int) -> tuple[Tensor, Metrics]:
        rng = Random(f"{seed} vq {step}")
        return vq_loss(vq, [random_scene(rng, rng.randint(0, 12)) for _ in range(16)])

    train("vq", vq, loss, out, steps, lr=3e-3, decay=max(1, steps // 2))
    return vq.requires_grad_(False).eval()


def vq_loss(vq: Any, scenes: list[Scene]) -> tuple[Tensor, Metrics]:
    """Loss of the encoder, for predicting the given code of each cell, and of the decoder, for reconstruction.

    Args:
        vq: The image tokenizer.
        scenes: A batch of scenes.
    """
    pixels, codes = render_batch(scenes, 64) * 2 - 1, scene_codes(scenes).flatten(1)
    latents = vq.quant_conv(vq.encoder(pixels)).flatten(2).mT
    distances = torch.cdist(latents, vq.quantize.embedding.weight.expand(len(latents), -1, -1)).square()
    encoding = F.cross_entropy(-distances.flatten(0, 1), codes.flatten())
    occupied = (codes != 0).float().view(-1, 1, GRID, GRID).repeat_interleave(16, 2).repeat_interleave(16, 3)
    reconstruction = ((vq.decode(codes) - pixels).abs() * (0.5 + 1.5 * occupied)).mean()  # most cells are empty
    error = (distances.argmin(-1) != codes).float().mean()
    metrics = {"encoding": encoding.item(), "reconstruction": reconstruction.item(), "error": error.item()}
    return encoding + 4 * reconstruction, metrics
