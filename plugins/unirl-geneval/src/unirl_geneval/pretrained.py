"""What both judges share: loading frozen models, and computing in float32 whatever runs around them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unirl import UserError
from unirl.backbones import building_on_cpu, describe_error, locate, quietly, read_json

_BACKENDS: Any = torch.backends  # its annotations do not know all of them
BACKENDS = (
    *(_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv),
    *(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv),
)
"""Where products and convolutions of float32 may be computed with fewer digits."""


def find_model(checkpoint: str, revision: str | None, owner: str) -> Path:
    """The folder of a model, downloaded where it is a hub id.

    Args:
        checkpoint: A folder, `package:folder` or hub id.
        revision: Branch, tag or commit of the hub's repository.
        owner: As for `load_model`.

    Raises:
        UserError: there is none.
    """
    try:
        return locate(checkpoint, revision=revision)
    except UserError as error:
        raise UserError(f"{owner}: {error}") from None


@building_on_cpu()
def load_model(
    model_class: Any,
    folder: Path,
    owner: str,
    model_type: str | None = None,
    may_lack: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """A frozen model of transformers, whose weights are complete.

    Args:
        model_class: Its class.
        folder: The checkpoint.
        owner: The name of the judge and its option, for the error message.
        model_type: What its config.json must say, or None.
        may_lack: Parts of the names of tensors that are not used.
        options: Of `from_pretrained`.

    Raises:
        UserError: it is another model, it cannot be read, or weights are missing.
    """
    try:
        found = read_json(folder / "config.json").get("model_type")
    except UserError as error:
        raise UserError(f"{owner}: {error}") from None
    if model_type is not None and found != model_type:
        raise UserError(f"{owner}: {folder} holds a model of type {found!r}, expected {model_type!r}; give another one")
    try:
        with torch.random.fork_rng(devices=()):  # random numbers of weights that are drawn first are not the run's
            model, info = quietly(
                model_class.from_pretrained, folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:  # transformers raises errors of many types
        raise UserError(
            f"{owner}: {folder} cannot be read ({describe_error(error)}); download or save it again"
        ) from error
    for name, got, expected in sorted(info["mismatched_keys"]):
        raise UserError(
            f"{owner}: {folder} has {name} of shape {tuple(got)}, but its config.json makes it {tuple(expected)}; "
            "they do not belong together"
        )
    missing = sorted(name for name in info["missing_keys"] if not any(part in name for part in may_lack))
    if missing:
        raise UserError(
            f"{owner}: {folder} lacks {missing[0]} ({len(missing)} such tensors); download or convert it again"
        )
    return model.eval().requires_grad_(False)


def load_part(auto_class: Any, folder: Path, owner: str) -> Any:
    """What prepares a model's inputs: a tokenizer or a processor.

    Args:
        auto_class: Its class, such as `AutoTokenizer`.
        folder: The checkpoint.
        owner: As for `load_model`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return quietly(auto_class.from_pretrained, folder)
    except Exception as error:  # transformers raises errors of many types
        what = auto_class.__name__.removeprefix("Auto").lower()
        raise UserError(
            f"{owner}: the {what} in {folder} cannot be read ({describe_error(error)}); download it again"
        ) from error


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Within a `with` block, without gradient, autocast and TF32, so that verdicts do not depend on a run's precision.

    Random numbers that some versions of transformers draw are not those of the run.

    Args:
        device: Where is computed.

    Example:
        >>> with torch.autocast("cpu"), exact_float32(torch.device("cpu")):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    before = [backend.fp32_precision for backend in BACKENDS]
    try:
        for backend in BACKENDS:
            backend.fp32_precision = "ieee"
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(BACKENDS, before, strict=True):
            backend.fp32_precision = precision


def levels(pixels: Tensor) -> Tensor:
    """Pixels as the 8-bit levels that an image file holds.

    Args:
        pixels: In [0, 1]; NaN is black.

    Example:
        >>> levels(torch.tensor([0.0, 100 / 255, 1.0])).tolist()
        [0, 100, 255]
    """
    return (pixels.float() * 255).round().nan_to_num().clamp(0, 255).to(torch.uint8)
