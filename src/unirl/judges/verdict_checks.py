"""What a judge returns, checked: a verdict is true or false, and an image three channels of real numbers."""

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from unirl.errors import UserError
from unirl.judges.base import Judge, Verdict
from unirl.plugin_outputs import find_mismatch, plain
from unirl.types import Example


def checked_verdicts(judge: Judge, examples: Sequence[Example], pixels: Tensor) -> Tensor:
    """The verdicts of a judge, which gets a copy of the images.

    Args:
        judge: The judge.
        examples: What each image was generated for.
        pixels: The images, in [0, 1].

    Shapes:
        pixels (B, 3, H, W); returns (B,) bool.

    Raises:
        UserError: it returned something else.

    Example:
        >>> import torch
        >>> class Shares(Judge):
        ...     def verdicts(self, examples, pixels):
        ...         return pixels.mean((1, 2, 3))
        >>> try:
        ...     checked_verdicts(Shares(), [Example("a cup")], torch.ones(1, 3, 8, 8))
        ... except UserError as error:
        ...     print(error)
        judge Shares: verdicts returned torch.float32, expected torch.bool: compare with a threshold
    """
    verdicts: object = judge.verdicts(list(examples), pixels.clone())
    mismatch = find_mismatch(verdicts, (len(examples),), pixels.device, is_bool=True)
    if mismatch is not None or not isinstance(verdicts, Tensor):
        raise UserError(f"{_name(judge)}: verdicts returned {mismatch}")
    return plain(verdicts)


def checked_explanations(judge: Judge, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
    """The verdicts of a judge with their reasons, where it gives some. It gets a copy of the images.

    Args:
        judge: The judge.
        examples: What each image was generated for.
        pixels: The images, in [0, 1].

    Shapes:
        pixels (B, 3, H, W).

    Raises:
        UserError: it returned something else than one verdict for each image.

    Example:
        >>> import torch
        >>> class Short(Judge):
        ...     def verdicts(self, examples, pixels):
        ...         return pixels.mean((1, 2, 3)) > 0.5
        ...     def explain(self, examples, pixels):
        ...         return [Verdict(True)]
        >>> try:
        ...     checked_explanations(Short(), [Example("a cup")] * 2, torch.ones(2, 3, 8, 8))
        ... except UserError as error:
        ...     print(error)
        judge Short: explain returned 1 verdict, expected 2, one for each image
    """
    if not _explains(judge):
        return [Verdict(bool(correct)) for correct in checked_verdicts(judge, examples, pixels).tolist()]
    found: object = judge.explain(list(examples), pixels.clone())
    if not isinstance(found, Sequence) or not all(isinstance(one, Verdict) for one in found):
        raise UserError(f"{_name(judge)}: explain returned {type(found).__name__}, expected a list of Verdict")
    if len(found) != len(examples):
        given = f"{len(found)} verdict{'' if len(found) == 1 else 's'}"
        raise UserError(f"{_name(judge)}: explain returned {given}, expected {len(examples)}, one for each image")
    for one in found:
        if mismatch := _mismatch(one):
            raise UserError(f"{_name(judge)}: explain returned a verdict whose {mismatch}")
    return list(found)


def _mismatch(verdict: Verdict) -> str | None:
    """What is wrong with the fields of a verdict, if anything."""
    if not isinstance(verdict.correct, bool):
        return f"`correct` is of {type(verdict.correct).__name__}, expected True or False"
    if not isinstance(verdict.reason, str):
        return f"`reason` is of {type(verdict.reason).__name__}, expected a text, empty for a correct image"
    for name, value in verdict.scores.items():
        if not isinstance(value, int | float):
            return f"score {name!r} is of {type(value).__name__}, expected a float"
        if not math.isfinite(value):
            return f"score {name!r} is {value}, expected a finite number"
    return None


def _explains(judge: Judge) -> bool:
    """Whether `explain` is of the same class as `verdicts`, or of one derived from it, and so belongs to them."""
    first = next(one for one in type(judge).__mro__ if {"verdicts", "explain"} & vars(one).keys())
    return "explain" in vars(first)


def checked_references(judge: Judge, examples: Sequence[Example]) -> Tensor | Sequence[str | None] | None:
    """The reference images of a judge, or their paths; None where it has none.

    Args:
        judge: The judge.
        examples: What the images must show.

    Shapes:
        returns (B, 3, H, W).

    Raises:
        UserError: it returned something else.
    """
    images: object = judge.references(list(examples))
    if images is None:
        return None
    paths = _checked_paths(judge, "references", images, len(examples))
    return _checked_images(judge, "references", images, len(examples)) if paths is None else paths


def checked_understanding_set(judge: Judge, count: int) -> tuple[list[Example], Tensor | list[str]] | None:
    """The images with questions of a judge, or their paths; None where it has none.

    Args:
        judge: The judge.
        count: Number of images.

    Shapes:
        images (N, 3, H, W), one for each example.

    Raises:
        UserError: it returned something else.
    """
    pair: object = judge.understanding_set(count)
    if pair is None:
        return None
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(one, Example) for one in pair[0]):
        raise UserError(f"{_name(judge)}: understanding_set returned no pair of a list of examples and their images")
    method, count = "understanding_set", len(pair[0])
    paths = _checked_paths(judge, method, pair[1], count)
    if paths is None:
        return list(pair[0]), _checked_images(judge, method, pair[1], count)
    if None in paths:
        raise UserError(f"{_name(judge)}: {method} returned None in place of an image, expected the path of a file")
    return list(pair[0]), [path for path in paths if path is not None]


def _checked_paths(judge: Judge, method: str, images: object, count: int) -> list[str | None] | None:
    """Paths of images, None among them where there is no image; None if these are no paths."""
    if not isinstance(images, list | tuple) or not all(one is None or isinstance(one, str | Path) for one in images):
        return None
    if len(images) != count:
        raise UserError(f"{_name(judge)}: {method} returned {len(images)} paths, expected {count}, one for each image")
    return [None if one is None else str(one) for one in images]


def _checked_images(judge: Judge, method: str, images: object, count: int) -> Tensor:
    shape = tuple(images.shape) if isinstance(images, Tensor) and not images.is_nested else (count,)
    mismatch = find_mismatch(images, shape)
    if mismatch is None and (len(shape) != 4 or shape[:2] != (count, 3)):
        mismatch = f"images of shape {shape}, expected ({count}, 3, H, W)"
    if mismatch is None and isinstance(images, Tensor) and not images.is_floating_point():
        mismatch = f"images of {images.dtype}, expected floats in [0, 1]"
    if mismatch is not None or not isinstance(images, Tensor):
        raise UserError(f"{_name(judge)}: {method} returned {mismatch}")
    return images


def _name(judge: Judge) -> str:
    return f"judge {type(judge).__name__}"
