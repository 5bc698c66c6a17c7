"""transformers' Janus checkpoints, checked and loaded; and the sizes of the public ones."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor

from unirl.backbones.checkpoints import (
    check_positions,
    load_transformers,
    local,
    quietly,
    read_json,
    reason,
    tensor_names,
)
from unirl.backbones.janus.processing import several
from unirl.errors import UserError


def check_kind(config: dict[str, Any], folder: Path) -> None:
    """Refuse checkpoints of other models, and Janus in its authors' own format."""
    kind = config.get("model_type")
    if kind == "multi_modality":
        raise UserError(
            f"{folder} is Janus in its authors' format; give one for transformers, such as "
            "deepseek-community/Janus-Pro-1B, or convert it by convert_janus_weights_to_hf.py (in transformers' "
            "repository, src/transformers/models/janus)"
        )
    if kind != "janus":
        raise UserError(f"{folder}/config.json says model_type {kind!r}; a Janus checkpoint says 'janus'")
    text = config.get("text_config", {})
    if not isinstance(text, dict):
        raise UserError(f"{folder}/config.json: text_config is {text!r}; expected an object")
    text = text.get("model_type", "llama")
    if text != "llama":
        raise UserError(f"{folder}: text_config says model_type {text!r}; Janus's language model is 'llama'")


def check(config: JanusConfig, processor: JanusProcessor, folder: Path) -> None:
    """Refuse a checkpoint whose parts do not belong together.

    Raises:
        UserError: naming what differs.
    """
    parts: Any = config
    vision, vq, tokenizer = parts.vision_config, parts.vq_config, processor.tokenizer
    image_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    patches = (vision.image_size // vision.patch_size) ** 2
    size: Any = processor.image_processor.size or {}
    height, width = size.get("height"), size.get("width")
    pairs = [
        ("the processor's image token id", image_id, "config.json's image_token_id", config.image_token_id),
        ("the processor's num_image_tokens", processor.num_image_tokens, "the vision tower's patches", patches),
        ("vision_config's num_image_tokens", vision.num_image_tokens, "the vision tower's patches", patches),
        ("the processor's picture height", height, "the vision tower's image_size", vision.image_size),
        ("the processor's picture width", width, "the vision tower's image_size", vision.image_size),
        (
            "the side of what the image tokenizer paints",
            vq.num_patches * 2 ** (len(vq.channel_multiplier) - 1),
            "the vision tower's image_size",
            vision.image_size,
        ),
    ]
    for one, got, other, expected in pairs:
        if got != expected:
            raise UserError(f"{folder}: {one} is {got}, but {other} is {expected}; they do not belong together")
    if len(tokenizer) > parts.text_config.vocab_size:
        room = parts.text_config.vocab_size
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the language model room for {room}")
    if processor.chat_template is None:
        raise UserError(f"{folder}: the processor has no chat template; save the checkpoint's own beside it")
    check_positions(parts.text_config, folder)


def check_ids(model: JanusForConditionalGeneration, processor: JanusProcessor, folder: Path) -> None:
    """Refuse ids that the language model has no room for, or that processor and model disagree about.

    Raises:
        UserError: naming the id.
    """
    given, config = (cast(Any, one) for one in (model.generation_config, model.config))
    room = config.text_config.vocab_size
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = several(getattr(given, name))
        for one in ids:
            if not isinstance(one, int) or not 0 <= one < room:
                raise UserError(f"{folder}: generation_config.json's {name} is {one!r}; ids go from 0 to {room - 1}")
        read = getattr(processor.tokenizer, name)
        if name != "pad_token_id" and ids and read is not None and read not in ids:
            _differ(folder, f"the tokenizer's {name}", read, name, getattr(given, name))
    begin = processor.tokenizer.convert_tokens_to_ids(processor.image_start_token)
    kept = getattr(given, "generation_kwargs", None)
    used = kept.get("boi_token_id", begin) if isinstance(kept, dict) else begin
    if used != begin:
        _differ(folder, "the id by which the processor begins a picture", begin, "boi_token_id", used)


def _differ(folder: Path, one: str, read: int, name: str, given: object) -> None:
    raise UserError(
        f"{folder}: {one} is {read}, but generation_config.json's {name} is {given}; they do not belong together"
    )


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
