"""The detector's input as mmdet makes it: OpenCV's bilinear resize on integers, padding, normalization."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LONG_SIDE, SHORT_SIDE = 1333, 800
PAD_VALUE, PAD_MULTIPLE = 128, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
WEIGHT_SCALE = 2048
"""OpenCV's bilinear weights are integers of this fraction."""


class InputSize(NamedTuple):
    """Sizes of an image on its way into the detector, each as (height, width)."""

    resized: tuple[int, int]
    padded: tuple[int, int]


def input_size(height: int, width: int, scale: tuple[int, int] = (LONG_SIDE, SHORT_SIDE)) -> InputSize:
    """The sizes of an image after resizing and after padding.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        scale: The longest long side and the longest short side of the resized image.

    Example:
        >>> input_size(480, 640)
        InputSize(resized=(800, 1067), padded=(800, 1088))
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    resized = (max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1))
    return InputSize(resized, (_round_up(resized[0]), _round_up(resized[1])))


def _round_up(side: int) -> int:
    return -(-side // PAD_MULTIPLE) * PAD_MULTIPLE


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """OpenCV's `resize` with bilinear interpolation on 8 bits, equal to it in every pixel.

    Args:
        images: Levels from 0 to 255.
        height: Of the resized images.
        width: Of the resized images.

    Shapes:
        images (..., h, w) uint8; returns (..., height, width) uint8.

    Source: `modules/imgproc/src/resize.cpp` of OpenCV 4.6, `INTER_LINEAR` for `CV_8U`.

    Example:
        >>> resize(torch.tensor([[0, 100]], dtype=torch.uint8), 1, 4).tolist()
        [[0, 25, 75, 100]]
    """
    h, w = images.shape[-2:]
    left, right, left_weight, right_weight = _on(images.device, _taps(w, width, is_column=True))
    top, bottom, top_weight, bottom_weight = _on(images.device, _taps(h, height, is_column=False))
    levels = images.to(torch.int32)
    rows = levels[..., left] * left_weight + levels[..., right] * right_weight  # (..., h, width)
    rows = rows >> 4
    upper = (rows[..., top, :] * top_weight[:, None]) >> 16
    lower = (rows[..., bottom, :] * bottom_weight[:, None]) >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _on(device: torch.device, arrays: tuple[np.ndarray, ...]) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]


def _taps(size: int, new_size: int, is_column: bool) -> tuple[np.ndarray, ...]:
    """For each new pixel of an axis: both old pixels that it is between, and their weights.

    OpenCV treats the ends of the two axes differently: past the end a column is the last pixel, and a row is the sum of
    the last pixel with both weights, which are rounded one by one.
    """
    scale = 1 / (new_size / size)
    position = ((np.arange(new_size) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    if is_column:
        fraction[(first < 0) | (first >= size - 1)] = 0
        first = first.clip(0, size - 1)
    weights = [
        np.rint(np.float32(WEIGHT_SCALE) * value).astype(np.int32) for value in (np.float32(1) - fraction, fraction)
    ]
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), *weights


def detector_input(images: Tensor, size: InputSize) -> Tensor:
    """Images as the detector takes them: resized, padded at the right and at the bottom, normalized.

    Args:
        images: Levels from 0 to 255.
        size: What `input_size` returns for their height and width.

    Shapes:
        images (B, 3, h, w) uint8; returns (B, 3, *size.padded) float32.
    """
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return (pad(resize(images, *size.resized), size).float() - mean) / std


def pad(images: Tensor, size: InputSize) -> Tensor:
    """Pad resized images with gray, before they are normalized, as mmdet 2.x does.

    Args:
        images: Resized images.
        size: Their size and that of the padded ones.

    Shapes:
        images (B, 3, *size.resized); returns (B, 3, *size.padded).
    """
    (height, width), (padded_height, padded_width) = size
    return torch.nn.functional.pad(images, (0, padded_width - width, 0, padded_height - height), value=PAD_VALUE)
