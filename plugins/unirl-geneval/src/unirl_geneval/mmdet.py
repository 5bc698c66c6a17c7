"""From mmdet's checkpoint of Mask2Former to transformers': GenEval's own detector."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unirl import UserError
from unirl.backbones import describe_error
from unirl_geneval.detector import Detector
from unirl_geneval.vocabulary import CLASSES

URL = (
    "https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/"
    "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"
)
"""GenEval's detector."""
POINTS = 4
"""Sampled by the pixel decoder for each head and level. Both codes have it as a constant."""
PIXELS, DECODER = "model.pixel_level_module", "model.transformer_module"
SWIN, PIXEL_DECODER = f"{PIXELS}.encoder", f"{PIXELS}.decoder"
BLOCK, BLOCKS = r"backbone\.stages\.(\d+)\.blocks\.(\d+)", rf"{SWIN}.encoder.layers.\1.blocks.\2"
PIXEL_LAYER, PIXEL_LAYERS = (
    r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)",
    rf"{PIXEL_DECODER}.encoder.layers.\1",
)
LAYER, LAYERS = r"panoptic_head\.transformer_decoder\.layers\.(\d+)", rf"{DECODER}.decoder.layers.\1"
RENAMED = {
    r"backbone\.patch_embed\.projection": f"{SWIN}.embeddings.patch_embeddings.projection",
    r"backbone\.patch_embed\.norm": f"{SWIN}.embeddings.norm",
    rf"{BLOCK}\.norm1": rf"{BLOCKS}.layernorm_before",
    rf"{BLOCK}\.norm2": rf"{BLOCKS}.layernorm_after",
    rf"{BLOCK}\.attn\.w_msa\.proj": rf"{BLOCKS}.attention.output.dense",
    rf"{BLOCK}\.attn\.w_msa\.relative_position": rf"{BLOCKS}.attention.self.relative_position",
    rf"{BLOCK}\.ffn\.layers\.0\.0": rf"{BLOCKS}.intermediate.dense",
    rf"{BLOCK}\.ffn\.layers\.1": rf"{BLOCKS}.output.dense",
    r"backbone\.stages\.(\d+)\.downsample": rf"{SWIN}.encoder.layers.\1.downsample",
    r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.conv": rf"{PIXEL_DECODER}.input_projections.\1.0",
    r"panoptic_head\.pixel_decoder\.input_convs\.(\d+)\.gn": rf"{PIXEL_DECODER}.input_projections.\1.1",
    r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.conv": f"{PIXEL_DECODER}.adapter_1.0",
    r"panoptic_head\.pixel_decoder\.lateral_convs\.0\.gn": f"{PIXEL_DECODER}.adapter_1.1",
    r"panoptic_head\.pixel_decoder\.output_convs\.0\.conv": f"{PIXEL_DECODER}.layer_1.0",
    r"panoptic_head\.pixel_decoder\.output_convs\.0\.gn": f"{PIXEL_DECODER}.layer_1.1",
    r"panoptic_head\.pixel_decoder\.mask_feature": f"{PIXEL_DECODER}.mask_projection",
    r"panoptic_head\.pixel_decoder\.level_encoding\.weight": f"{PIXEL_DECODER}.level_embed",
    rf"{PIXEL_LAYER}\.attentions\.0": rf"{PIXEL_LAYERS}.self_attn",
    rf"{PIXEL_LAYER}\.ffns\.0\.layers\.0\.0": rf"{PIXEL_LAYERS}.fc1",
    rf"{PIXEL_LAYER}\.ffns\.0\.layers\.1": rf"{PIXEL_LAYERS}.fc2",
    rf"{PIXEL_LAYER}\.norms\.0": rf"{PIXEL_LAYERS}.self_attn_layer_norm",
    rf"{PIXEL_LAYER}\.norms\.1": rf"{PIXEL_LAYERS}.final_layer_norm",
    rf"{LAYER}\.attentions\.0\.attn": rf"{LAYERS}.cross_attn",
    rf"{LAYER}\.attentions\.1\.attn": rf"{LAYERS}.self_attn",
    rf"{LAYER}\.norms\.0": rf"{LAYERS}.cross_attn_layer_norm",
    rf"{LAYER}\.norms\.1": rf"{LAYERS}.self_attn_layer_norm",
    rf"{LAYER}\.norms\.2": rf"{LAYERS}.final_layer_norm",
    rf"{LAYER}\.ffns\.0\.layers\.0\.0": rf"{LAYERS}.fc1",
    rf"{LAYER}\.ffns\.0\.layers\.1": rf"{LAYERS}.fc2",
    r"panoptic_head\.transformer_decoder\.post_norm": f"{DECODER}.decoder.layernorm",
    r"panoptic_head\.query_embed": f"{DECODER}.queries_embedder",
    r"panoptic_head\.query_feat": f"{DECODER}.queries_features",
    r"panoptic_head\.level_embed": f"{DECODER}.level_embed",
    r"panoptic_head\.cls_embed": "class_predictor",
}
"""Beginnings of mmdet's names, as patterns, and what stands there in transformers'. Others are in `_convert_tensor`."""


def convert(checkpoint: Path, out: Path) -> None:
    """Write mmdet's checkpoint as one of transformers.

    Args:
        checkpoint: A `.pth` of mmdet 2.x: Mask2Former with a Swin, of COCO's instances.
        out: The folder that is written. It must not hold anything.

    Raises:
        UserError: the file cannot be read or is another model, or the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and is not empty; give a new folder")
    weights, labels = read(checkpoint)
    try:
        converted, config = convert_weights(weights), make_config(weights, labels)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{checkpoint} is no Mask2Former of mmdet 2.x with a Swin ({describe_error(error)})") from error
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent) as parent:  # what is in `out` is whole
            folder = Path(parent) / "detector"
            folder.mkdir()
            save_file(converted, folder / "model.safetensors", metadata={"format": "pt"})
            config.save_pretrained(folder)
            Detector(str(folder))  # it says what is missing
            folder.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}); give another folder") from error


def read(checkpoint: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of mmdet's file, and its names of classes.

    Args:
        checkpoint: The file.

    Raises:
        UserError: it cannot be read as tensors, is of mmdet 3.x, or does not detect COCO's 80 classes.
    """
    try:
        content = torch.load(checkpoint, "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file {checkpoint}; GenEval's detector is {URL}") from None
    except Exception as error:  # unpickling raises errors of many types
        raise UserError(
            f"{checkpoint} cannot be read ({describe_error(error)}); download it again. Only tensors and plain values "
            "are read from it, never code"
        ) from error
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or "panoptic_head.cls_embed.weight" not in weights:
        raise UserError(f"{checkpoint} holds no Mask2Former of mmdet; GenEval's detector is {URL}")
    if any(".transformer_decoder.layers.0.cross_attn." in name for name in weights):
        raise UserError(f"{checkpoint} is of mmdet 3.x, whose detector is not GenEval's; that is {URL}")
    classes = len(weights["panoptic_head.cls_embed.weight"]) - 1
    if classes != len(CLASSES):
        raise UserError(
            f"{checkpoint} has {classes} classes, and GenEval's detector COCO's {len(CLASSES)}; it is {URL}"
        )
    meta = content.get("meta")
    labels = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    return dict(weights), [*map(str, labels or CLASSES)]


def make_config(weights: Mapping[str, Tensor], labels: list[str]) -> Any:
    """The config of transformers that fits the weights.

    Args:
        weights: By mmdet's names.
        labels: Names of the classes.
    """
    from transformers import Mask2FormerConfig, SwinConfig  # noqa: PLC0415 - slow to import

    stages = range(_count(weights, r"backbone\.stages\.(\d+)\."))
    block, head = "backbone.stages.{}.blocks.0.", "panoptic_head."
    tables = [weights[block.format(i) + "attn.w_msa.relative_position_bias_table"] for i in stages]
    hidden, width = weights[f"{head}query_feat.weight"].shape[1], len(weights["backbone.patch_embed.norm.weight"])
    layer, pixel_layer = f"{head}transformer_decoder.layers.0.", f"{head}pixel_decoder.encoder.layers.0."
    levels = len(weights[f"{head}level_embed.weight"])
    swin: dict[str, Any] = {
        "embed_dim": width,
        "depths": [_count(weights, rf"backbone\.stages\.{i}\.blocks\.(\d+)\.") for i in stages],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (round(len(tables[0]) ** 0.5) + 1) // 2,
        "mlp_ratio": len(weights[block.format(0) + "ffn.layers.0.0.weight"]) / width,
        "drop_path_rate": 0.0,
        "out_features": [f"stage{i + 1}" for i in stages],
    }
    return Mask2FormerConfig(
        backbone_config=SwinConfig(**swin),
        architectures=["Mask2FormerForUniversalSegmentation"],
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        hidden_dim=hidden,
        feature_size=len(weights[f"{head}pixel_decoder.mask_feature.weight"]),
        mask_feature_size=len(weights[f"{head}pixel_decoder.mask_feature.weight"]),
        encoder_feedforward_dim=len(weights[f"{pixel_layer}ffns.0.layers.0.0.weight"]),
        encoder_layers=_count(weights, PIXEL_LAYER + r"\."),
        decoder_layers=_count(weights, LAYER + r"\.") + 1,
        dim_feedforward=len(weights[f"{layer}ffns.0.layers.0.0.weight"]),
        num_attention_heads=len(weights[f"{pixel_layer}attentions.0.attention_weights.bias"]) // (levels * POINTS),
        num_queries=len(weights[f"{head}query_feat.weight"]),
    )


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in weights)
    return 1 + max(int(match[1]) for match in found if match)


def convert_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by transformers' names.

    Args:
        weights: By mmdet's names.

    Raises:
        ValueError: a name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.endswith("relative_position_index"):  # made again from the size of the window
            converted |= _convert_tensor(name, tensor.float())
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _convert_tensor(name: str, tensor: Tensor) -> dict[str, Tensor]:
    if match := re.fullmatch(rf"{BLOCK}\.attn\.w_msa\.qkv\.(\w+)", name):
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        prefix = match.expand(BLOCKS)
        return {f"{prefix}.attention.self.{part}.{match[3]}": value.clone() for part, value in parts}
    if match := re.fullmatch(rf"{LAYER}\.attentions\.1\.attn\.in_proj_(\w+)", name):
        prefix = match.expand(LAYERS)
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{part}_proj.{match[2]}": value.clone() for part, value in parts}
    if match := re.fullmatch(r"backbone\.norm(\d+)\.(\w+)", name):
        return {f"{SWIN}.hidden_states_norms.stage{int(match[1]) + 1}.{match[2]}": tensor}
    if match := re.fullmatch(r"panoptic_head\.mask_embed\.([024])\.(\w+)", name):
        return {f"{DECODER}.decoder.mask_predictor.mask_embedder.{int(match[1]) // 2}.0.{match[2]}": tensor}
    if ".downsample." in name:
        tensor = _reorder_merged(tensor)
    for pattern, new in RENAMED.items():
        renamed, count = re.subn(rf"{pattern}(?=[._]|$)", new, name, count=1)
        if count and re.match(pattern, name):
            return {renamed: tensor}
    raise ValueError(f"unknown tensor {name}")


def _reorder_merged(tensor: Tensor) -> Tensor:
    """The last axis of what merges 2x2 patches: mmdet has the patch, row by row, after the channel, and transformers
    before it, column by column."""
    channels = tensor.shape[-1] // 4
    split = tensor.reshape(*tensor.shape[:-1], channels, 2, 2)  # (..., C, row, column)
    return split.movedim(-3, -1).transpose(-3, -2).flatten(-3)  # (..., column, row, C)
