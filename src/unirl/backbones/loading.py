"""Loading models of transformers whole, and without its reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from unirl.backbones.files import reason
from unirl.errors import UserError


def load_transformers(kind: Any, folder: Path) -> Any:
    """A transformers model in float32; every tensor must be there, and nothing may be left over.

    Args:
        kind: Its class.
        folder: Of a checkpoint in transformers' format.

    Raises:
        UserError: it cannot be read, or its tensors are not the model's.
    """
    try:
        model, report = quietly(
            kind.from_pretrained, folder, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True
        )
    except Exception as error:
        name = kind.__name__.removesuffix("ForConditionalGeneration")
        raise UserError(f"{folder}: no {name} can be loaded ({reason(error)}); download or save it again") from None
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, report[what])):
            kinds = f"{len(names)} {what.partition('_')[0]} tensors"
            raise UserError(f"{folder}: {kinds}, such as {names[0]}; wrong or incomplete checkpoint")
    return model


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
