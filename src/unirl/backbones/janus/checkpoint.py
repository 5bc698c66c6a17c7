"""Janus checkpoints in transformers' format: loading, checking and saving; sizes of the public ones."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor

from unirl.backbones.checkpoints import (
    check_rope_type,
    describe_error,
    load_transformers,
    locate_local,
    quietly,
    read_json,
    tensor_names,
)
from unirl.backbones.janus.processing import as_list
from unirl.errors import UserError


def check_model_type(config: dict[str, Any], folder: Path) -> None:
    """Refuse checkpoints of other models, and Janus in its authors' own format."""
    model_type = config.get("model_type")
    if model_type == "multi_modality":
        raise UserError(
            f"{folder} is Janus in its authors' format; give one in transformers' format, such as "
            "deepseek-community/Janus-Pro-1B, or convert it by convert_janus_weights_to_hf.py (in transformers' "
            "repository, src/transformers/models/janus)"
        )
    if model_type != "janus":
        raise UserError(f"{folder}/config.json has model_type {model_type!r}; that of a Janus checkpoint is 'janus'")
    text = config.get("text_config", {})
    if not isinstance(text, dict):
        raise UserError(f"{folder}/config.json: text_config is {text!r}; expected an object")
    text_type = text.get("model_type", "llama")
    if text_type != "llama":
        raise UserError(f"{folder}: text_config has model_type {text_type!r}; Janus's language model is 'llama'")


def check(config: JanusConfig, processor: JanusProcessor, folder: Path) -> None:
    """Refuse a checkpoint whose model and processor do not belong together.

    Raises:
        UserError: names what differs.
    """
    configs: Any = config
    vision, vq, tokenizer = configs.vision_config, configs.vq_config, processor.tokenizer
    image_id = tokenizer.convert_tokens_to_ids(processor.image_token)
    patches = (vision.image_size // vision.patch_size) ** 2
    size: Any = processor.image_processor.size or {}
    height, width = size.get("height"), size.get("width")
    pairs = [
        ("the processor's image token id", image_id, "config.json's image_token_id", config.image_token_id),
        ("the processor's num_image_tokens", processor.num_image_tokens, "the vision tower's patches", patches),
        ("vision_config's num_image_tokens", vision.num_image_tokens, "the vision tower's patches", patches),
        ("the processor's image height", height, "the vision tower's image_size", vision.image_size),
        ("the processor's image width", width, "the vision tower's image_size", vision.image_size),
        (
            "the size of the images that the image tokenizer decodes",
            vq.num_patches * 2 ** (len(vq.channel_multiplier) - 1),
            "the vision tower's image_size",
            vision.image_size,
        ),
    ]
    for one, got, other, expected in pairs:
        if got != expected:
            raise UserError(f"{folder}: {one} is {got}, but {other} is {expected}; they do not belong together")
    if len(tokenizer) > configs.text_config.vocab_size:
        vocab_size = configs.text_config.vocab_size
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the language model {vocab_size}")
    if processor.chat_template is None:
        raise UserError(f"{folder}: the processor has no chat template; save the checkpoint's own with it")
    check_rope_type(configs.text_config, folder)


def check_ids(model: JanusForConditionalGeneration, processor: JanusProcessor, folder: Path) -> None:
    """Refuse ids outside the vocabulary, and ids in which processor and model differ.

    Raises:
        UserError: names the id.
    """
    generation, config = (cast(Any, one) for one in (model.generation_config, model.config))
    vocab_size = config.text_config.vocab_size
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = as_list(getattr(generation, name))
        for one in ids:
            if not isinstance(one, int) or not 0 <= one < vocab_size:
                known = f"ids go from 0 to {vocab_size - 1}"
                raise UserError(f"{folder}: generation_config.json's {name} is {one!r}; {known}")
        own = getattr(processor.tokenizer, name)
        if name != "pad_token_id" and ids and own is not None and own not in ids:
            _refuse(folder, f"the tokenizer's {name}", own, name, getattr(generation, name))
    start = processor.tokenizer.convert_tokens_to_ids(processor.image_start_token)
    kwargs = getattr(generation, "generation_kwargs", None)
    used = kwargs.get("boi_token_id", start) if isinstance(kwargs, dict) else start
    if used != start:
        _refuse(folder, "the id of the processor's image_start_token", start, "boi_token_id", used)


def _refuse(folder: Path, what: str, value: int, name: str, other: object) -> None:
    raise UserError(
        f"{folder}: {what} is {value}, but generation_config.json's {name} is {other}; they do not belong together"
    )


def _public_config(width: int, layers: int, heads: int, intermediate: int) -> dict[str, Any]:
    text = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": intermediate, "vocab_size": 102400}
    text |= {"num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 16384}
    return {
        "text_config": text,
        "vision_config": {"projection_dim": width},
        "vq_config": {"projection_dim": width, "image_token_embed_dim": width},
        "tie_word_embeddings": False,
    }


_1B = _public_config(2048, 24, 16, 5632)
PUBLIC = {
    "deepseek-ai/Janus-1.3B": _1B,
    "deepseek-community/Janus-Pro-1B": _1B,
    "deepseek-community/Janus-Pro-7B": _public_config(4096, 30, 32, 11008),
}
"""Configs of public checkpoints, for building on the meta device without their files."""


def build_on_meta(name: str) -> tuple[JanusForConditionalGeneration, JanusProcessor | None]:
    """The modules of a local or a known public checkpoint on the meta device, and the processor of a local one.

    Raises:
        UserError: the checkpoint is neither.
    """
    folder = None if name in PUBLIC else locate_local(name)
    if folder is not None:
        check_model_type(values := read_json(folder / "config.json"), folder)
        if "lm_head.weight" in tensor_names(folder):  # an old config.json leaves it out
            values.setdefault("tie_word_embeddings", False)
        try:
            with torch.device("meta"):
                model = JanusForConditionalGeneration(JanusConfig(**values))
        except Exception as error:
            raise UserError(f"{folder}/config.json: no Janus can be built from it ({describe_error(error)})") from None
        return model, load_processor(folder)
    if name not in PUBLIC:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    with torch.device("meta"):
        return JanusForConditionalGeneration(JanusConfig(**PUBLIC[name])), None


def load_checkpoint(folder: Path) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    """Model and processor of a checkpoint folder, in float32.

    Raises:
        UserError: something is missing, broken, or belongs to another checkpoint.
    """
    check_model_type(read_json(folder / "config.json"), folder)
    model, processor = load_transformers(JanusForConditionalGeneration, folder), load_processor(folder)
    check(model.config, processor, folder)
    check_ids(model, processor, folder)
    return model, processor


def load_processor(folder: Path) -> JanusProcessor:
    """The processor of a checkpoint folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return JanusProcessor.from_pretrained(folder)
    except Exception as error:
        raise UserError(
            f"{folder}: no processor can be read ({describe_error(error)}); save it with the model"
        ) from None


def save_checkpoint(folder: Path, model: JanusForConditionalGeneration, processor: JanusProcessor) -> None:
    """Write a checkpoint as transformers does: safetensors, configs, processor."""
    quietly(model.save_pretrained, folder)
    processor.save_pretrained(folder)
