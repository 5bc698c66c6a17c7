"""Emu3 checkpoints in transformers' format: loading, checking and saving; size of the public ones."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import Emu3Config, Emu3ForConditionalGeneration, Emu3Processor, GenerationConfig

from unirl import UserError
from unirl.backbones import check_rope_type, describe_error, load_transformers, locate_local, quietly, read_json

PUBLIC = ("BAAI/Emu3-Gen-hf", "BAAI/Emu3-Chat-hf")
"""Public checkpoints, all of the default size of `Emu3Config`."""
_FIRST_CODE_ID, _END_OF_LINE_ID = 151854, 151846


def build_on_meta(name: str) -> tuple[Emu3ForConditionalGeneration, Emu3Processor | None]:
    """The modules of a local or a public checkpoint on the meta device, and the processor of a local one.

    Raises:
        UserError: the checkpoint is neither, or its files are broken.
    """
    folder = None if name in PUBLIC else locate_local(name)
    if folder is not None:
        return _build_local_on_meta(folder)
    if name not in PUBLIC:
        raise UserError(f"sizes of {name!r} are not known without its files; known: {', '.join(PUBLIC)}")
    config: Any = Emu3Config()
    codes = range(config.vq_config.codebook_size)
    config.vocabulary_map = {f"<|visual token {code:06d}|>": _FIRST_CODE_ID + code for code in codes}
    config.vocabulary_map["<|extra_200|>"] = _END_OF_LINE_ID
    with torch.device("meta"):
        return Emu3ForConditionalGeneration(config), None


def _build_local_on_meta(folder: Path) -> tuple[Emu3ForConditionalGeneration, Emu3Processor]:
    values = read_json(folder / "config.json")
    check_model_type(values, folder)
    file = folder / "generation_config.json"
    generation = read_json(file) if file.is_file() else {}
    try:
        with torch.device("meta"):
            model = Emu3ForConditionalGeneration(Emu3Config(**values))
        if generation:
            model.generation_config = GenerationConfig.from_dict(generation)
    except Exception as error:
        raise UserError(f"{folder}: no Emu3 can be built of its configs ({describe_error(error)})") from None
    return model, load_processor(model, folder)


def load_checkpoint(folder: Path) -> tuple[Emu3ForConditionalGeneration, Emu3Processor]:
    """Model and processor of a checkpoint folder, in float32.

    Raises:
        UserError: something is missing, broken, or belongs to another checkpoint.
    """
    check_model_type(read_json(folder / "config.json"), folder)
    model = load_transformers(Emu3ForConditionalGeneration, folder)
    return model, load_processor(model, folder)


def load_processor(model: Emu3ForConditionalGeneration, folder: Path) -> Emu3Processor:
    """The processor of a checkpoint folder, which belongs to its model.

    Raises:
        UserError: it is missing, broken, or belongs to another checkpoint.
    """
    try:
        processor = Emu3Processor.from_pretrained(folder)
    except Exception as error:
        raise UserError(
            f"{folder}: no processor can be read ({describe_error(error)}); save it with the model"
        ) from None
    check(model.config, processor, folder)
    check_generation(model, folder)
    return processor


def save_checkpoint(folder: Path, model: Emu3ForConditionalGeneration, processor: Emu3Processor) -> None:
    """Write a checkpoint as transformers does: safetensors, configs, processor."""
    quietly(model.save_pretrained, folder)
    processor.save_pretrained(folder)


def check_model_type(config: dict[str, Any], folder: Path) -> None:
    """Refuse checkpoints of other models, and Emu3 in its authors' own format."""
    model_type = config.get("model_type")
    if model_type == "Emu3":
        raise UserError(
            f"{folder} is Emu3 in its authors' format; give one in transformers' format, such as {PUBLIC[0]}, "
            "or convert it (transformers has convert_emu3_weights_to_hf.py)"
        )
    if model_type != "emu3":
        raise UserError(f"{folder}/config.json has model_type {model_type!r}; that of an Emu3 checkpoint is 'emu3'")
    if not config.get("vocabulary_map"):
        raise UserError(f"{folder}/config.json has no vocabulary_map, with the ids of codes; convert it again")


def check(config: Any, processor: Emu3Processor, folder: Path) -> None:
    """Refuse a checkpoint whose model and processor do not belong together.

    Raises:
        UserError: names what differs.
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
        vocab_size = config.text_config.vocab_size
        raise UserError(f"{folder}: the tokenizer has {len(tokenizer)} ids, the language model {vocab_size}")
    if code_size(config) != processor.downsample_ratio:
        raise UserError(
            f"{folder}: a code is {code_size(config)} pixels wide, the processor expects {processor.downsample_ratio}"
        )
    if processor.chat_template is None:
        raise UserError(f"{folder}: the processor has no chat template; save the one of {PUBLIC[1]} with it")
    check_rope_type(config.text_config, folder)


def check_generation(model: Emu3ForConditionalGeneration, folder: Path) -> None:
    """Refuse sizes of images and ends of text that cannot be Emu3's.

    Raises:
        UserError: names the field.
    """
    generation: Any = model.generation_config
    config: Any = model.config
    file, vocab_size = folder / "generation_config.json", config.text_config.vocab_size
    ratio, area = getattr(generation, "ratio", None), getattr(generation, "image_area", None)
    check_size("1:1" if ratio is None else ratio, 64 if area is None else area, f"{file}: ")
    ends = generation.eos_token_id
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (type(end) is not int or not 0 <= end < vocab_size):
            raise UserError(f"{file}: eos_token_id is {ends!r}; ids go from 0 to {vocab_size - 1}")


def code_size(config: Any) -> int:
    """Pixels along one side of a code."""
    return 2 ** (len(config.vq_config.channel_multiplier) - 1)


def grid(ratio: str, area: int, config: Any) -> tuple[int, int]:
    """Lines of codes and codes of a line, as the processor computes them.

    Raises:
        UserError: the size is invalid, or longer than the language model's longest sequence.
    """
    check_size(ratio, area)
    width, height = map(int, ratio.split(":"))
    scale = (area / (width * height)) ** 0.5 / code_size(config)
    lines, codes = round(height * scale), round(width * scale)
    longest = config.text_config.max_position_embeddings
    if not lines or not codes or lines * (codes + 1) >= longest:
        raise UserError(
            f"image_area {area} at ratio {ratio} makes {lines} lines of {codes} codes; the model reads {longest} "
            "tokens at most, prompt included: give another image_area"
        )
    return lines, codes


def check_size(ratio: Any, area: Any, where: str = "") -> None:
    """Refuse invalid image sizes.

    Args:
        ratio: Width to height.
        area: Number of pixels.
        where: Put before the message.

    Raises:
        UserError: names the value.
    """
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(ratio)):
        raise UserError(f"{where}ratio {ratio!r}: expected width:height in whole numbers, such as 1:1 or 4:3")
    if type(area) is not int or area < 64:
        raise UserError(f"{where}image_area {area!r}: expected the number of pixels, at least 64, which is one code")
