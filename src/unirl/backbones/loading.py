"""Loading models of transformers whole, and without its reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import logging

from unirl.backbones.files import UNREADABLE, has_weights, reason, weight_files
from unirl.errors import UserError


def load_transformers(kind: Any, folder: Path) -> Any:
    """A transformers model in float32; every tensor must be there, and nothing may be left over.

    Args:
        kind: Its class.
        folder: Of a checkpoint in transformers' format.

    Raises:
        UserError: it cannot be read, or its tensors are not the model's.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}
    try:  # other sizes are in the report then, with their names
        model, report = quietly(kind.from_pretrained, folder, **options, ignore_mismatched_sizes=True)
    except Exception as error:
        name = kind.__name__.removesuffix("ForConditionalGeneration")
        raise UserError(f"{folder}: no {name} can be loaded ({reason(error)}); download or save it again") from None
    for name, got, expected in sorted(report["mismatched_keys"]):
        sizes = f"{name} has shape {tuple(got)}, but config.json makes it {tuple(expected)}"
        raise UserError(f"{folder}: {sizes}; they do not belong together")
    for what in ("missing_keys", "unexpected_keys"):
        if names := sorted(map(str, report[what])):
            kinds = f"{len(names)} {what.partition('_')[0]} tensors"
            raise UserError(f"{folder}: {kinds}, such as {names[0]}; wrong or incomplete checkpoint")
    return model


def tensor_names(folder: Path) -> set[str]:
    """The names of a checkpoint folder's tensors, none of which is read; of none where it holds no weights.

    Raises:
        UserError: an index of shards or a file is broken.
    """
    names: set[str] = set()
    for file in weight_files(folder) if has_weights(folder) else ():
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as tensors:
                    names.update(tensors.keys())
            else:
                names.update(torch.load(file, "meta", weights_only=True))
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read ({reason(error)}); download it again") from None
    return names


def check_positions(config: Any, folder: Path) -> None:
    """Refuse rotary embeddings that the longest row of a batch decides: samples would depend on who shares it.

    Args:
        config: Of the language model.
        folder: For the error message.

    Raises:
        UserError: naming their type.
    """
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if kind in ("dynamic", "longrope"):
        raise UserError(
            f"{folder}: rope_type {kind!r} makes a sample depend on the longest of its batch, so that no drawing could "
            "be scored as it was drawn; models of other types are supported, such as 'default', 'linear' and 'yarn'"
        )


def normalization(pictures: Any, checkpoint: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by which a checkpoint normalizes pictures in [0, 1].

    Args:
        pictures: Its image processor, which is given 0 to 255.
        checkpoint: For the error message.

    Shapes:
        returns two of (3, 1, 1).

    Raises:
        UserError: it does not normalize, or not by one number for each of red, green and blue.
    """
    if pictures.image_mean is None or pictures.image_std is None or not pictures.do_normalize:
        raise UserError(
            f"{checkpoint}: the processor does not normalize pictures; image_mean and image_std must be there"
        )
    factor = pictures.rescale_factor if pictures.do_rescale else 1.0
    found = []
    for name, values in (("image_mean", pictures.image_mean), ("image_std", pictures.image_std)):
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise UserError(f"{checkpoint}: the processor's {name} is {values!r}; expected three numbers")
        found.append(torch.tensor(values, dtype=torch.float32).view(3, 1, 1) / (255 * factor))
    return found[0], found[1]


def quietly(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call it without transformers' bars and reports: what they say is checked afterwards."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return call(*args, **options)
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
