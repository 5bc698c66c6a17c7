"""Janus checkpoints: loading both formats, checking, and saving in transformers'; sizes of the public ones."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration, JanusProcessor

from unirl.backbones.checkpoints import (
    check_rope_type,
    describe_error,
    load_transformers,
    locate_local,
    quietly,
    read_json,
    tensor_shapes,
)
from unirl.backbones.janus import authors_format, authors_processor
from unirl.backbones.janus.authors_format import MODEL_TYPE
from unirl.backbones.janus.processing import as_list
from unirl.errors import UserError


def check_model_type(config: dict[str, Any], folder: Path) -> None:
    """Refuse checkpoints of other models than a Janus in transformers' format."""
    model_type = config.get("model_type")
    if model_type != "janus":
        known = f"that of a Janus checkpoint is 'janus' (transformers' format) or {MODEL_TYPE!r} (its authors')"
        raise UserError(f"{folder}/config.json has model_type {model_type!r}; {known}")
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
    longest = configs.text_config.max_position_embeddings
    if longest <= vision.num_image_tokens:
        raise UserError(
            f"{folder}/config.json: text_config's max_position_embeddings is {longest}, and an image has "
            f"{vision.num_image_tokens} tokens; expected more, for a prompt or a question"
        )
    if len(tokenizer) > configs.text_config.vocab_size:
        vocab_size = configs.text_config.vocab_size
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the language model {vocab_size}")
    if processor.chat_template is None:
        raise UserError(f"{folder}: the processor has no chat template; save the checkpoint's own with it")
    check_rope_type(configs.text_config, folder)


def guidance_of(generation: Any, where: str) -> float:
    """The guidance of a generation config, as `ImageSampling` counts it.

    Args:
        generation: Its `guidance_scale` is 1 without guidance, or is missing.
        where: The checkpoint, for the error message.

    Raises:
        UserError: it is no number in range.
    """
    scale = getattr(generation, "guidance_scale", None)
    if scale is None:
        return 0.0
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 1000:
        raise UserError(
            f"{where}: generation_config.json's guidance_scale is {scale!r}; expected a number from 0 to 1000"
        )
    return scale - 1.0


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


_1B, _7B = _public_config(2048, 24, 16, 5632), _public_config(4096, 30, 32, 11008)
PUBLIC = {
    "deepseek-ai/Janus-1.3B": _1B,
    "deepseek-ai/Janus-Pro-1B": _1B,
    "deepseek-ai/Janus-Pro-7B": _7B,
    "deepseek-community/Janus-Pro-1B": _1B,
    "deepseek-community/Janus-Pro-7B": _7B,
}
"""Configs of public checkpoints, for building on the meta device without their files. Those of deepseek-ai are in the
authors' format, those of deepseek-community in transformers'."""


def build_on_meta(
    name: str, do_normalize: bool | None = None
) -> tuple[JanusForConditionalGeneration, JanusProcessor | None]:
    """The modules of a local or a known public checkpoint on the meta device, and the processor of a local one.

    Args:
        name: The checkpoint.
        do_normalize: As for `load_checkpoint`.

    Raises:
        UserError: the checkpoint is neither.
    """
    folder = None if name in PUBLIC else locate_local(name)
    if folder is not None:
        return _build_local_on_meta(folder, do_normalize)
    if name not in PUBLIC:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    with torch.device("meta"):
        return JanusForConditionalGeneration(JanusConfig(**PUBLIC[name])), None


def _build_local_on_meta(
    folder: Path, do_normalize: bool | None
) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    values = read_json(folder / "config.json")
    if values.get("model_type") == MODEL_TYPE:
        model, processor = _load_authors(authors_format.load_on_meta, values, folder)
        return model, _choose_normalization(processor, do_normalize, True, folder)
    check_model_type(values, folder)
    if "lm_head.weight" in tensor_shapes(folder):  # an old config.json leaves it out
        values.setdefault("tie_word_embeddings", False)
    try:
        with torch.device("meta"):
            model = JanusForConditionalGeneration(JanusConfig(**values))
    except Exception as error:
        raise UserError(f"{folder}/config.json: no Janus can be built from it ({describe_error(error)})") from None
    file = folder / "generation_config.json"
    if file.is_file():
        generation = read_json(file)
        try:
            model.generation_config = GenerationConfig.from_dict(generation)
        except Exception as error:
            raise UserError(f"{file} cannot be read ({describe_error(error)})") from None
    processor = load_processor(folder)
    check(model.config, processor, folder)
    check_ids(model, processor, folder)
    return model, _choose_normalization(processor, do_normalize, None, folder)


def load_checkpoint(
    folder: Path, do_normalize: bool | None = None
) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    """Model and processor of a checkpoint folder, in float32.

    Args:
        folder: A checkpoint in transformers' format or in that of Janus's authors.
        do_normalize: The processor's, whatever its file says. None for that of the file in transformers' format, and
            for true in the authors'.

    Raises:
        UserError: something is missing, broken, or belongs to another checkpoint.
    """
    values = read_json(folder / "config.json")
    authors = values.get("model_type") == MODEL_TYPE
    if authors:
        model, processor = _load_authors(authors_format.load_model, values, folder)
    else:
        check_model_type(values, folder)
        model, processor = load_transformers(JanusForConditionalGeneration, folder), load_processor(folder)
    check(model.config, processor, folder)
    check_ids(model, processor, folder)
    return model, _choose_normalization(processor, do_normalize, True if authors else None, folder)


def _load_authors(
    load: Callable[[dict[str, Any], JanusProcessor, Path], JanusForConditionalGeneration],
    values: dict[str, Any],
    folder: Path,
) -> tuple[JanusForConditionalGeneration, JanusProcessor]:
    authors_format.read_sizes(values, folder)  # a model of another kind lacks other files, too
    processor = authors_processor.load_processor(folder)
    model = load(values, processor, folder)
    model.generation_config = authors_processor.generation_config(processor)
    return model, processor


def _choose_normalization(
    processor: JanusProcessor, chosen: bool | None, default: bool | None, folder: Path
) -> JanusProcessor:
    """The processor with the `do_normalize` that is chosen; says so where its file has another."""
    wanted, stored = default if chosen is None else chosen, processor.image_processor.do_normalize
    if wanted is None or wanted == stored:
        return processor
    processor.image_processor.do_normalize = wanted
    done = "are normalized, as those of Janus-Pro are" if wanted else "are not normalized"
    warnings.warn(
        f"{folder} has do_normalize {str(bool(stored)).lower()}, but images that are asked about {done}; "
        f"do_normalize: {str(bool(stored)).lower()} of the backbone follows the checkpoint",
        stacklevel=2,
    )
    return processor


def load_processor(folder: Path) -> JanusProcessor:
    """The processor of a checkpoint folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        processor = JanusProcessor.from_pretrained(folder)
    except Exception as error:
        raise UserError(
            f"{folder}: no processor can be read ({describe_error(error)}); save it with the model"
        ) from None
    _restore_bos(processor.tokenizer, folder)
    return processor


def _restore_bos(tokenizer: Any, folder: Path) -> None:
    """Begin texts with the begin of text if the checkpoint says so: transformers 5 does not read this setting."""
    file = folder / "tokenizer_config.json"
    wanted = file.is_file() and read_json(file).get("add_bos_token")
    if wanted and tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = True


def save_checkpoint(folder: Path, model: JanusForConditionalGeneration, processor: JanusProcessor) -> None:
    """Write a checkpoint as transformers does: safetensors, configs, processor."""
    quietly(model.save_pretrained, folder)
    processor.save_pretrained(folder)
