"""Random checkpoints of both backbones, written in their public formats, for runs that load them as any other."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from sizes import SEED
from sizes import TINY as TINY_TEXT
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.showo import Magvit, ShowoConfig
from unirl.backbones.showo.checkpoint import phi, save
from unirl_shapes.pretrain import janus_model
from unirl_shapes.pretrain import showo as showo_model
from unirl_shapes.pretrain.showo import text_tokenizer
from unirl_shapes.pretrain.tokenizer import SIZES as TINY_IMAGE
from unirl_shapes.pretrain.vq import SIZES as TINY_VQ

WIDTHS = {"middle": (512, 8), "large": (768, 12)}
"""Hidden size and layers. `tiny` is the embedded world's: 128 and 4."""
STRIDE = 16  # pixels along a code of Janus's


def write(kind: str, size: str, folder: Path, side: int | None = None) -> None:
    """Write a checkpoint.

    Args:
        kind: `showo` or `janus`.
        size: `tiny`, `middle` or `large`.
        folder: Where.
        side: Codes along a picture beyond `tiny`, if not as many as usual.
    """
    torch.manual_seed(SEED)
    if kind == "showo":
        _showo(size, folder, side or 16)
    else:
        _janus(size, folder, side or 12)


def _showo(size: str, folder: Path, side: int) -> None:
    """Beyond `tiny`, ids, text positions and, by default, codes are the public 256 px model's."""
    if size == "tiny":
        showo_model.untrained(folder, Magvit(TINY_IMAGE), SEED)
        return
    (width, layers), config = WIDTHS[size], ShowoConfig(num_vq_tokens=side**2)
    text = TINY_TEXT | {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": width // 64, "max_position_embeddings": 2048}
    save(folder, config, phi(config, text), Magvit(dataclasses.replace(TINY_IMAGE, z_channels=13)), text_tokenizer())


def _janus(size: str, folder: Path, side: int) -> None:
    """Beyond `tiny`, vocabulary and codebook are the public models'; codes are a quarter of theirs."""
    if size == "tiny":
        janus_model.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**TINY_VQ)), SEED)
        return
    width, layers = WIDTHS[size]
    text: dict[str, Any] = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 8 * width // 3}
    text |= {"num_attention_heads": width // 64, "num_key_value_heads": width // 64, "max_position_embeddings": 2048}
    vision = janus_model.VISION_SIZES | {"projection_dim": width, "num_image_tokens": side**2}
    vision |= {"image_size": side * STRIDE, "patch_size": STRIDE}
    vq = {"projection_dim": width, "image_token_embed_dim": width, "num_embeddings": 16384}
    vq |= {"base_channels": 32, "num_patches": side}
    words = _Vocabulary(text)
    with patch.multiple(janus_model, TEXT_SIZES=words, VISION_SIZES=vision, VQ_SIZES=vq, CELLS=side**2):
        janus_model.untrained(folder, JanusVQVAE(JanusVQVAEConfig(**vq)), SEED)


class _Vocabulary(dict[str, Any]):
    """Sizes whose vocabulary stays the public models', whatever is put on top."""

    def __or__(self, other: Any) -> "_Vocabulary":
        return _Vocabulary({**self, **other, "vocab_size": 102400})
