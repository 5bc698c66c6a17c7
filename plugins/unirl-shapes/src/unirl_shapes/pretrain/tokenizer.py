"""Trains the world's MAGVIT-v2: renderings to codes that mean one thing each, and back."""

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from unirl.backbones.showo.bits import bits_to_codes, codes_to_bits
from unirl.backbones.showo.magvit import Magvit, MagvitConfig
from unirl_shapes.pretrain.runner import Metrics, train
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import clutter

SIZES = MagvitConfig(
    ch=8,
    encoder_ch_mult=(1, 2, 2, 4, 4),
    decoder_ch_mult=(1, 2, 2, 4, 4),
    encoder_blocks=(1, 1, 1, 1, 1),
    decoder_blocks=(1, 1, 1, 1, 1),
    z_channels=8,
    groups=4,
)


def pretrain_tokenizer(out: Path, steps: int, seed: int) -> Magvit:
    """Train the tokenizer, or load the finished one.

    Args:
        out: Folder of the result, the log and the state.
        steps: Training steps of 16 pictures.
        seed: Of weights and pictures.
    """
    torch.manual_seed(seed)
    magvit = Magvit(SIZES)
    file = out / "image_tokenizer.safetensors"
    if not file.is_file():

        def loss(step: int) -> tuple[Tensor, Metrics]:
            rng = Random(f"{seed} tokenizer {step}")
            pixels = render_batch([clutter(rng, rng.randint(0, 9)) for _ in range(16)], 64) * 2 - 1
            return tokenizer_loss(magvit, pixels, entropy_weight=0.3 * max(0.0, 1 - step / (0.4 * steps)))

        train("tokenizer", magvit, loss, out, steps, lr=2e-3)
        save_file(magvit.state_dict(), file)
    magvit.load_state_dict(torch.load(out / "tokenizer.state.pt", weights_only=True)["model"])
    return magvit.requires_grad_(False).eval()


def tokenizer_loss(magvit: Magvit, pixels: Tensor, entropy_weight: float) -> tuple[Tensor, Metrics]:
    """Reconstruction through straight-through sign bits, commitment, and a codebook entropy that keeps codes apart.

    Shapes:
        pixels (B, 3, H, W) in [-1, 1].
    """
    z = magvit.encoder(pixels)
    bits = torch.where(z > 0, 1.0, -1.0)
    out = magvit.decoder(z + (bits - z).detach())
    reconstruction = F.mse_loss(out, pixels) + 0.5 * F.l1_loss(out, pixels)
    commitment = F.mse_loss(z, bits)
    entropy = code_entropy(z)
    used = torch.unique(bits_to_codes(bits > 0)).numel()
    metrics = {"reconstruction": reconstruction.item(), "commitment": commitment.item(), "codes": float(used)}
    return reconstruction + 0.1 * commitment + entropy_weight * entropy, metrics


def code_entropy(z: Tensor) -> Tensor:
    """Mean entropy of a position's code minus the entropy of the mean code: low when codes are sure and all used.

    Source: Yu et al. 2023 (arXiv 2310.05737), eq. 5.

    Shapes:
        z (B, Z, H, W).
    """
    table = codes_to_bits(torch.arange(2 ** z.shape[1])[None, None], z.shape[1])[0, :, 0]  # (Z, K)
    logits = 2 * z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]) @ table
    log_p = logits.log_softmax(-1)
    mean = log_p.exp().mean(0)
    return -(log_p.exp() * log_p).sum(-1).mean() + (mean * (mean + 1e-9).log()).sum()
