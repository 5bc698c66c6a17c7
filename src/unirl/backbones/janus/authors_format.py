"""Janus in its authors' own format (`model_type` "multi_modality"): config and weights as transformers' classes.

The format is that of https://github.com/deepseek-ai/Janus, in which Janus-1.3B and Janus-Pro are published.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration, JanusProcessor, LlamaConfig

from unirl.backbones.checkpoints import describe_error, load_transformers, read_weights, tensor_shapes
from unirl.errors import UserError

MODEL_TYPE = "multi_modality"
"""The `model_type` of a `config.json` in this format; DeepSeek-VL and JanusFlow have the same."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a checkpoint's tensors by name."""

TOWER, IMAGE_TOKENIZER = "vision_model.vision_tower", "gen_vision_model"
"""Where the tensors of the vision tower and of the image tokenizer are."""
TOWER_HEADS = 16
"""Attention heads of every SigLIP tower of the public code; no tensor shows them."""
EXPECTED: dict[str, dict[str, object]] = {
    "vision_config": {"cls": "CLIPVisionTower", "select_layer": -1, "select_feature": "same"},
    "aligner_config": {"cls": "MlpProjector", "projector_type": "mlp_gelu"},
    "gen_vision_config": {"cls": "VQ-16"},
    "gen_aligner_config": {"cls": "MlpProjector", "projector_type": "mlp_gelu"},
    "gen_head_config": {"cls": "vision_head"},
}
"""Parts of `config.json` besides the language model, and the values that transformers' classes compute."""
SIZES = {
    "vision_config": ("image_size",),
    "aligner_config": ("depth", "input_dim", "n_embed"),
    "gen_vision_config": ("image_token_size", "n_embed"),
    "gen_aligner_config": ("depth", "input_dim", "n_embed"),
    "gen_head_config": ("n_embed", "image_token_embed", "image_token_size"),
}
"""Sizes that each part must have."""
EQUAL = (
    ("aligner_config.n_embed", "language_config.hidden_size"),
    ("gen_aligner_config.n_embed", "language_config.hidden_size"),
    ("gen_head_config.n_embed", "language_config.hidden_size"),
    ("gen_head_config.image_token_embed", "language_config.hidden_size"),
    ("gen_head_config.image_token_size", "gen_vision_config.image_token_size"),
    ("gen_aligner_config.input_dim", "gen_vision_config.n_embed"),
)
"""Sizes that transformers' classes have once."""
UNUSED = re.compile(
    r"vision_model\.vision_tower\.attn_pool\..*|gen_vision_model\.quantize\.codebook_used|.*\.rotary_emb\.inv_freq"
)
"""Tensors that nothing computes with."""
QKV = re.compile(r"^model\.vision_model\..*\.self_attn\.([qkv])_proj\.")
"""Tensors of the vision tower that are a third each of one of the authors'."""
POSITIONS = "model.vision_model.embeddings.position_embedding.weight"
"""A tensor that has one more axis with the authors."""
RULES = (
    (r"^lm_head\.", "language_model.lm_head."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^model\.vision_model\.embeddings\.patch_embedding\.", f"{TOWER}.patch_embed.proj."),
    (rf"^{re.escape(POSITIONS)}$", f"{TOWER}.pos_embed"),
    (r"^model\.vision_model\.encoder\.layers\.", f"{TOWER}.blocks."),
    (r"^model\.vision_model\.post_layernorm\.", f"{TOWER}.norm."),
    (rf"^({re.escape(TOWER)}\.blocks\.\d+)\.layer_norm", r"\1.norm"),
    (rf"^({re.escape(TOWER)}\.blocks\.\d+)\.self_attn\.[qkv]_proj\.", r"\1.attn.qkv."),
    (rf"^({re.escape(TOWER)}\.blocks\.\d+)\.self_attn\.projection_layer\.", r"\1.attn.proj."),
    (r"^model\.aligner\.", "aligner."),
    (r"^model\.generation_aligner\.", "gen_aligner."),
    (r"aligner\.fc1\.", "aligner.layers.0."),
    (r"^model\.generation_embeddings\.", "gen_embed."),
    (r"^model\.generation_head\.", "gen_head."),
    (r"^gen_head\.proj_out\.", "gen_head.output_mlp_projector."),
    (r"^model\.vqmodel\.", f"{IMAGE_TOKENIZER}."),
    (r"\.(encoder\.down|decoder\.up)\.(\d+)\.block\.", r".\1.\2.res."),
    (r"\.(encoder|decoder)\.(down|up)\.(\d+)\.", r".\1.conv_blocks.\3."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.block_2\.", ".mid.2."),
)
"""From a name of transformers to the authors': replacements of regular expressions, one after another."""


def source_name(name: str) -> str:
    """The authors' name of the tensor that a tensor of transformers' Janus is taken from.

    Args:
        name: In the state dict of `JanusForConditionalGeneration`.

    Example:
        >>> source_name("model.vision_model.encoder.layers.3.self_attn.k_proj.bias")
        'vision_model.vision_tower.blocks.3.attn.qkv.bias'
        >>> source_name("model.aligner.hidden_layers.0.weight")
        'aligner.layers.2.weight'
    """
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    # the authors count the activations between the layers, too
    return re.sub(r"aligner\.hidden_layers\.(\d+)", lambda found: f"aligner.layers.{2 * int(found[1]) + 2}", name)


def load_model(values: dict[str, Any], processor: JanusProcessor, folder: Path) -> JanusForConditionalGeneration:
    """The model of a folder, in float32.

    Args:
        values: Of its `config.json`.
        processor: Returned by `authors_processor.load_processor`.
        folder: The checkpoint.

    Raises:
        UserError: a part, a size or a tensor is missing or of another model.
    """
    weights = read_weights(folder, mmap=True)
    config = janus_config(values, {name: tuple(tensor.shape) for name, tensor in weights.items()}, processor, folder)
    weights = rename_weights(weights, _build_on_meta(config, folder), folder)
    return load_transformers(JanusForConditionalGeneration, folder, config, weights)


def load_on_meta(values: dict[str, Any], processor: JanusProcessor, folder: Path) -> JanusForConditionalGeneration:
    """The same on the meta device; the folder may lack the weights. Arguments and errors as for `load_model`."""
    return _build_on_meta(janus_config(values, tensor_shapes(folder), processor, folder), folder)


def _build_on_meta(config: JanusConfig, folder: Path) -> JanusForConditionalGeneration:
    try:
        with torch.device("meta"):
            return JanusForConditionalGeneration(config)
    except Exception as error:
        raise _cannot_build(folder, error) from None


# --- weights ---


def rename_weights(weights: dict[str, Tensor], model: JanusForConditionalGeneration, folder: Path) -> dict[str, Tensor]:
    """Copies of the authors' tensors in float32, with transformers' names and shapes.

    Args:
        weights: By the authors' names.
        model: Has the names and shapes that are needed; may be on the meta device.
        folder: Where they come from, for the error messages.

    Raises:
        UserError: names a tensor that is missing, unknown or of another shape.
    """
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    sources = {name: source_name(name) for name in shapes}
    unknown = [name for name in weights if name not in set(sources.values()) and not UNUSED.fullmatch(name)]
    if model.config.tie_word_embeddings:
        _check_tied(weights, folder)
        del sources["lm_head.weight"]
    missing = [name for name in dict.fromkeys(sources.values()) if name not in weights]
    for kind, names in (("missing", missing), ("unexpected", unknown)):
        if names:
            count = f"{len(names)} {kind} tensors"
            raise UserError(f"{folder}: {count}, such as {names[0]}; wrong or incomplete checkpoint")
    for name, source in sources.items():
        got, expected = tuple(weights[source].shape), _source_shape(name, shapes[name])
        if got != expected:
            shape = f"{source} has shape {got}, but config.json and the other tensors make it {expected}"
            raise UserError(f"{folder}: {shape}; they do not belong together")
    return {name: _part(name, weights[source]).to(torch.float32, copy=True) for name, source in sources.items()}


def _check_tied(weights: Mapping[str, Tensor], folder: Path) -> None:
    head, embedding = (weights.get(f"language_model.{name}.weight") for name in ("lm_head", "model.embed_tokens"))
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise UserError(
            f"{folder}: language_model.lm_head.weight is not the embedding, but config.json's tie_word_embeddings is "
            "true; set it to false in language_config if the checkpoint is right"
        )


def _source_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if QKV.search(name):
        return (3 * shape[0], *shape[1:])
    return (1, *shape) if name == POSITIONS else shape


def _part(name: str, tensor: Tensor) -> Tensor:
    if found := QKV.search(name):
        return tensor.chunk(3)["qkv".index(found[1])]
    return tensor[0] if name == POSITIONS else tensor


# --- config ---


def janus_config(values: dict[str, Any], shapes: Shapes, processor: JanusProcessor, folder: Path) -> JanusConfig:
    """The config of transformers' classes.

    Args:
        values: Of the authors' `config.json`.
        shapes: Of the authors' tensors, which show the sizes of vision tower and image tokenizer. Without any, they
            are those of the public code.
        processor: Its tokenizer says the ids.
        folder: Where they come from, for the error messages.

    Raises:
        UserError: a part or a size is missing, or of a model that transformers' classes do not compute.
    """
    sizes, text = read_sizes(values, folder), _text_config(values["language_config"], processor, folder)
    width = text.hidden_size
    vision = {"image_size": sizes["vision_config.image_size"], "depth": sizes["aligner_config.depth"]}
    vision |= _tower_sizes(shapes, folder) | {"projection_dim": width}
    vision["num_image_tokens"] = (vision["image_size"] // vision["patch_size"]) ** 2
    vq = {"embed_dim": sizes["gen_vision_config.n_embed"], "projection_dim": width, "image_token_embed_dim": width}
    vq |= {"num_embeddings": sizes["gen_vision_config.image_token_size"]} | _image_tokenizer_sizes(shapes, folder)
    vq |= {"num_hidden_layers": sizes["gen_aligner_config.depth"]}
    parts: dict[str, Any] = {"text_config": text, "vision_config": vision, "vq_config": vq}
    image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    try:
        return JanusConfig(**parts, image_token_id=image_token_id, tie_word_embeddings=text.tie_word_embeddings)
    except Exception as error:
        raise _cannot_build(folder, error) from None


def read_sizes(values: dict[str, Any], folder: Path) -> dict[str, int]:
    """The sizes that `config.json` has, such as "gen_vision_config.n_embed".

    Args:
        values: Of `config.json`.
        folder: Where it comes from, for the error messages.

    Raises:
        UserError: a part or a size is missing, or of a model that transformers' classes do not compute.
    """
    text = values.get("language_config")
    if not isinstance(text, dict):
        raise _lacks(folder, "language_config")
    kind = text.get("model_type", "llama")
    if kind != "llama":
        raise UserError(f"{folder}: language_config has model_type {kind!r}; Janus's language model is 'llama'")
    sizes = {f"{part}.{name}": size for part in SIZES for name, size in _part_sizes(values, part, folder).items()}
    sizes["language_config.hidden_size"] = text.get("hidden_size", LlamaConfig.hidden_size)
    for one, other in EQUAL:
        if sizes[one] != sizes[other]:
            differ = f"{one} is {sizes[one]!r}, but {other} is {sizes[other]!r}"
            raise UserError(f"{folder}/config.json: {differ}; they are equal in Janus and Janus-Pro")
    return sizes


def _cannot_build(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder}/config.json: no Janus can be built from it ({describe_error(error)})")


def _text_config(text: dict[str, Any], processor: JanusProcessor, folder: Path) -> LlamaConfig:
    # types of weights and of attention are the caller's; `pad_token_id` would keep the padding from learning
    kept = {name: value for name, value in text.items() if "dtype" not in name and not name.startswith("_")}
    ids = {name: getattr(processor.tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    try:
        return LlamaConfig(**(kept | ids | {"pad_token_id": None}))
    except Exception as error:
        raise _cannot_build(folder, error) from None


def _part_sizes(values: dict[str, Any], part: str, folder: Path) -> dict[str, int]:
    """The sizes that a part of `config.json` has, once its other values are known to be those of the public code."""
    config = values.get(part)
    if not isinstance(config, dict) or not isinstance(config.get("params"), dict):
        raise _lacks(folder, part)
    given = config["params"] | {"cls": config.get("cls")}
    for name, expected in EXPECTED[part].items():
        if given.get(name) != expected:
            got = f"{part} has {name} {given.get(name)!r}"
            raise UserError(f"{folder}/config.json: {got}; that of Janus and Janus-Pro is {expected!r}")
    for name in SIZES[part]:
        if type(given.get(name)) is not int or given[name] < 1:
            raise UserError(f"{folder}/config.json: {part} has {name} {given.get(name)!r}; expected a positive integer")
    return {name: given[name] for name in SIZES[part]}


def _lacks(folder: Path, part: str) -> UserError:
    return UserError(
        f"{folder}/config.json has no {part} with the values that Janus and Janus-Pro have; DeepSeek-VL and JanusFlow, "
        f"which have model_type {MODEL_TYPE!r}, too, are not supported"
    )


def _tower_sizes(shapes: Shapes, folder: Path) -> dict[str, Any]:
    """Sizes of the vision tower; without tensors those of SigLIP-L/16."""
    if not shapes:
        return {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": TOWER_HEADS, "patch_size": 16}
    width, _, patch_size, _ = _shape(shapes, f"{TOWER}.patch_embed.proj.weight", 4, folder)
    intermediate, _ = _shape(shapes, f"{TOWER}.blocks.0.mlp.fc1.weight", 2, folder)
    exact = intermediate % width == 0  # transformers rounds the product of width and ratio down
    ratio = intermediate / width if exact else (intermediate + 0.5) / width
    layers = _count(shapes, rf"{re.escape(TOWER)}\.blocks\.(\d+)\.")
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": TOWER_HEADS}
    return sizes | {"patch_size": patch_size, "mlp_ratio": ratio}


def _image_tokenizer_sizes(shapes: Shapes, folder: Path) -> dict[str, Any]:
    """Sizes of the image tokenizer; without tensors those of VQ-16, which are transformers' own defaults."""
    if not shapes:
        return {}
    encoder = f"{IMAGE_TOKENIZER}.encoder"
    base = _shape(shapes, f"{encoder}.conv_in.weight", 4, folder)[0]
    levels = range(_count(shapes, rf"{re.escape(encoder)}\.conv_blocks\.(\d+)\."))
    widths = [_shape(shapes, f"{encoder}.conv_blocks.{level}.res.0.conv2.weight", 4, folder)[0] for level in levels]
    return {
        "base_channels": base,
        "channel_multiplier": [width // base for width in widths],
        "num_res_blocks": _count(shapes, rf"{re.escape(encoder)}\.conv_blocks\.0\.res\.(\d+)\."),
        "latent_channels": _shape(shapes, f"{IMAGE_TOKENIZER}.quant_conv.weight", 4, folder)[1],
    }


def _shape(shapes: Shapes, name: str, axes: int, folder: Path) -> tuple[int, ...]:
    if name not in shapes:
        raise UserError(f"{folder}: tensor {name} is missing; wrong or incomplete checkpoint")
    if len(shapes[name]) != axes or 0 in shapes[name]:
        raise UserError(f"{folder}: {name} has shape {shapes[name]}, expected {axes} axes; wrong checkpoint")
    return shapes[name]


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest index in names that begin with a pattern."""
    return 1 + max((int(found[1]) for name in shapes if (found := re.match(pattern, name))), default=-1)
