"""transformers' Emu3 checkpoints, checked and loaded; and the size of the public ones."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import Emu3Config, Emu3ForConditionalGeneration, Emu3Processor

from unirl.backbones.checkpoints import check_positions, load_transformers, quietly, read_json, reason
from unirl.errors import UserError

PUBLIC = ("BAAI/Emu3-Gen-hf", "BAAI/Emu3-Chat-hf")
"""Known public checkpoints, all of the size that `Emu3Config` has by default."""
_VISUAL, _END_OF_LINE = 151854, 151846


def public(name: str) -> tuple[Emu3ForConditionalGeneration, None]:
    """A known public checkpoint's modules on the meta device; it comes without a processor.

    Raises:
        UserError: the checkpoint is not among the known ones.
    """
    if name not in PUBLIC:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    config: Any = Emu3Config()
    codes = range(config.vq_config.codebook_size)
    config.vocabulary_map = {f"<|visual token {code:06d}|>": _VISUAL + code for code in codes}
    config.vocabulary_map["<|extra_200|>"] = _END_OF_LINE
    with torch.device("meta"):
        return Emu3ForConditionalGeneration(config), None


def load(folder: Path) -> tuple[Emu3ForConditionalGeneration, Emu3Processor]:
    """Model and processor of a checkpoint folder, in float32.

    Raises:
        UserError: something is missing, broken, or belongs to another checkpoint.
    """
    check_kind(read_json(folder / "config.json"), folder)
    model = load_transformers(Emu3ForConditionalGeneration, folder)
    try:
        processor = Emu3Processor.from_pretrained(folder)
    except Exception as error:
        raise UserError(f"{folder}: no processor can be read ({reason(error)}); save it beside the model") from None
    check(model.config, processor, folder)
    return model, processor


def save(folder: Path, model: Emu3ForConditionalGeneration, processor: Emu3Processor) -> None:
    """Write a checkpoint as transformers does: safetensors, configs, processor."""
    quietly(model.save_pretrained, folder)
    processor.save_pretrained(folder)


def check_kind(config: dict[str, Any], folder: Path) -> None:
    """Refuse checkpoints of other models, and Emu3 in its authors' own format."""
    kind = config.get("model_type")
    if kind == "Emu3":
        raise UserError(
            f"{folder} is Emu3 in its authors' format; give one for transformers, such as {PUBLIC[0]}, "
            "or convert it (transformers has convert_emu3_weights_to_hf.py)"
        )
    if kind != "emu3":
        raise UserError(f"{folder}/config.json says model_type {kind!r}; an Emu3 checkpoint says 'emu3'")
    if not config.get("vocabulary_map"):
        raise UserError(f"{folder}/config.json has no vocabulary_map, which says where codes are; convert it again")


def check(config: Any, processor: Emu3Processor, folder: Path) -> None:
    """Refuse a checkpoint whose parts do not belong together.

    Raises:
        UserError: naming what differs.
    """
    vocabulary, tokenizer = config.vocabulary_map, processor.tokenizer
    for token in ("<|visual token 000000|>", "<|extra_200|>", processor.image_token):
        got, expected = tokenizer.get_vocab().get(token), vocabulary.get(token)
        if got is None or got != expected:
            raise UserError(
                f"{folder}: {token} is {got} in the tokenizer and {expected} in config.json's vocabulary_map; "
                "they do not belong together"
            )
    if len(tokenizer) > config.text_config.vocab_size:
        room = config.text_config.vocab_size
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the language model room for {room}")
    if factor(config) != processor.downsample_ratio:
        raise UserError(
            f"{folder}: a code is {factor(config)} pixels wide, the processor counts {processor.downsample_ratio}"
        )
    if processor.chat_template is None:
        raise UserError(f"{folder}: the processor has no chat template; save the one of {PUBLIC[1]} beside it")
    check_positions(config.text_config, folder)


def factor(config: Any) -> int:
    """Pixels that a code is wide."""
    return 2 ** (len(config.vq_config.channel_multiplier) - 1)


def grid(ratio: str, area: int, config: Any) -> tuple[int, int]:
    """Lines of codes and codes in a line, as the processor counts them.

    Raises:
        UserError: no such size, or one longer than the language model's longest sequence.
    """
    check_size(ratio, area)
    width, height = map(int, ratio.split(":"))
    scale = (area / (width * height)) ** 0.5 / factor(config)
    lines, codes = round(height * scale), round(width * scale)
    room = config.text_config.max_position_embeddings
    if not lines or not codes or lines * (codes + 1) >= room:
        raise UserError(
            f"image_area {area} at ratio {ratio} makes {lines} lines of {codes} codes; the model has room for {room} "
            "tokens, prompt included: give another image_area"
        )
    return lines, codes


def check_size(ratio: Any, area: Any) -> None:
    """Refuse what is no size of pictures.

    Raises:
        UserError: naming what it is.
    """
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(ratio)):
        raise UserError(f"ratio {ratio!r}: expected width:height in whole numbers, such as 1:1 or 4:3")
    if not isinstance(area, int) or area < 64:
        raise UserError(f"image_area {area!r}: expected the pixels of a picture, at least 64, which is one code")
