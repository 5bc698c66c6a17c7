"""Checkpoints of both backbones with random weights, in their public formats."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from sizes import SEED
from sizes import TINY as TINY_TEXT
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.showo import Magvit, MagvitConfig, ShowoConfig, build_text_model, save_checkpoint
from unirl_shapes.pretrain import janus_model
from unirl_shapes.pretrain import showo as showo_model
from unirl_shapes.pretrain.showo import text_tokenizer
from unirl_shapes.pretrain.tokenizer import SIZES as TINY_IMAGE
from unirl_shapes.pretrain.vq import SIZES as TINY_VQ

WIDTHS = {"middle": (512, 8), "large": (768, 12), "public": (2048, 24)}
"""Hidden size and layers. `tiny` is the size of unirl-shapes: 128 and 4; `public` that of Show-o and Janus-Pro-1B."""
PUBLIC_VISION = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
STRIDE = 16
"""Pixels along a side of a code, of Janus."""


def write(backbone: str, size: str, folder: Path, side: int | None = None) -> None:
    """Write a checkpoint.

    Args:
        backbone: `showo` or `janus`.
        size: `tiny`, `middle`, `large` or `public`, whose image tokenizer is the public one, too.
        folder: Where to write it.
        side: Codes along a side of an image, except for `tiny`. Defaults to 16 for Show-o and 12 for Janus, whose
            `public` size has 24.
    """
    torch.manual_seed(SEED)
    if backbone == "showo":
        _showo(size, folder, side or 16)
    else:
        _janus(size, folder, side or (24 if size == "public" else 12))


def _showo(size: str, folder: Path, side: int) -> None:
    """Except for `tiny`, vocabulary, text positions and, by default, codes are those of the public 256 px model."""
    if size == "tiny":
        showo_model.untrained(folder, Magvit(TINY_IMAGE), SEED)
        return
    (width, layers), config = WIDTHS[size], ShowoConfig(num_vq_tokens=side**2)
    text = TINY_TEXT | {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": width // 64, "max_position_embeddings": 2048}
    tokenizer = Magvit(MagvitConfig() if size == "public" else dataclasses.replace(TINY_IMAGE, z_channels=13))
    save_checkpoint(folder, config, build_text_model(config, text), tokenizer, text_tokenizer())


def _janus(size: str, folder: Path, side: int) -> None:
    """Except for `tiny`, vocabulary and codebook are public sizes; codes are a quarter of those by default."""
    if size == "tiny":
        janus_model.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**TINY_VQ)), SEED)
        return
    width, layers = WIDTHS[size]
    text: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 8 * width // 3}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": width // 64, "max_position_embeddings": 2048}
    if size == "public":
        text |= {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 5632}
    vision = janus_model.VISION_SIZES | {"projection_dim": width, "num_image_tokens": side**2}
    vision |= {"image_size": side * STRIDE, "patch_size": STRIDE} | (PUBLIC_VISION if size == "public" else {})
    vq = {"projection_dim": width, "image_token_embed_dim": width, "num_embeddings": 16384}
    vq |= {"base_channels": 128 if size == "public" else 32, "num_patches": side}
    text_sizes = _PublicVocabulary(text)
    with patch.multiple(janus_model, TEXT_SIZES=text_sizes, VISION_SIZES=vision, VQ_SIZES=vq, CELLS=side**2):
        janus_model.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**vq)), SEED)


class _PublicVocabulary(dict[str, Any]):
    """Sizes whose vocabulary size stays that of the public models when others are merged in."""

    def __or__(self, other: Any) -> "_PublicVocabulary":
        return _PublicVocabulary({**self, **other, "vocab_size": 102400})
