"""transformers' Janus checkpoints, checked and loaded; and the sizes of the public ones."""

from pathlib import Path
from typing import Any

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor

from unirl.backbones.files import local, read_json, reason
from unirl.backbones.janus.checking import check, check_ids, check_kind
from unirl.backbones.loading import load_transformers, quietly, tensor_names
from unirl.errors import UserError


def _public(width: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    text = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": intermediate, "vocab_size": 102400}
    text |= {"num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 16384}
    return {
        "text_config": text,
        "vision_config": {"projection_dim": width},
        "vq_config": {"projection_dim": width, "image_token_embed_dim": width},
        "tie_word_embeddings": False,
    }


_1B = _public(2048, 24, 16, 5632)
PUBLIC = {
    "deepseek-ai/Janus-1.3B": _1B,
    "deepseek-community/Janus-Pro-1B": _1B,
    "deepseek-community/Janus-Pro-7B": _public(4096, 30, 32, 11008),
}
"""Known public checkpoints: what to build when their files are not at hand (meta device only)."""


def public(name: str) -> JanusForConditionalGeneration:
    """The modules of a checkpoint on this machine, or of a known public one, on the meta device.

    Raises:
        UserError: the checkpoint is neither.
    """
    folder = None if name in PUBLIC else local(name)
    if folder is not None:
        check_kind(values := read_json(folder / "config.json"), folder)
        if "lm_head.weight" in tensor_names(folder):  # says what an old config.json leaves out
            values.setdefault("tie_word_embeddings", False)
        try:
            with torch.device("meta"):
                return JanusForConditionalGeneration(JanusConfig(**values))
        except Exception as error:
            raise UserError(f"{folder}/config.json: no Janus can be built from it ({reason(error)})") from None
    if name not in PUBLIC:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    with torch.device("meta"):
        return JanusForConditionalGeneration(JanusConfig(**PUBLIC[name]))


def load(folder: Path) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    """Model and processor of a checkpoint folder, in float32.

    Raises:
        UserError: something is missing, broken, or belongs to another checkpoint.
    """
    check_kind(read_json(folder / "config.json"), folder)
    model = load_transformers(JanusForConditionalGeneration, folder)
    try:
        processor = JanusProcessor.from_pretrained(folder)
    except Exception as error:
        raise UserError(f"{folder}: no processor can be read ({reason(error)}); save it beside the model") from None
    check(model.config, processor, folder)
    check_ids(model, processor, folder)
    return model, processor


def save(folder: Path, model: JanusForConditionalGeneration, processor: JanusProcessor) -> None:
    """Write a checkpoint as transformers does: safetensors, configs, processor."""
    quietly(model.save_pretrained, folder)
    processor.save_pretrained(folder)
