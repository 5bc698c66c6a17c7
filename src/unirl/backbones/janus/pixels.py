"""Pixels as Janus's authors compute them: images of any size in the model's square, and the 256 levels of a file."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def fit_to_square(image: Image.Image, size: int, min_size: int, background: tuple[int, int, int]) -> Tensor:
    """An image of any size in the middle of a square, as `VLMImageProcessor` of the authors' code puts it there.

    The longer side gets the length of the square, the other one its share, rounded down. (transformers rounds to the
    nearest, so that half of all shapes are a pixel larger there.)

    Args:
        image: Of any size and mode.
        size: Side of the square, in pixels.
        min_size: No side of the image gets shorter, in pixels.
        background: Color of what the image leaves empty, three values from 0 to 255.

    Shapes:
        returns (3, size, size), in [0, 1].

    Example:
        >>> fit_to_square(Image.new("RGB", (50, 31)), 24, 5, (127, 127, 127)).shape
        torch.Size([3, 24, 24])
    """
    longest = max(image.size)
    sides = [max(int(side / longest * size), min_size) for side in image.size]
    resized = image.convert("RGB").resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (max(sides), max(sides)), background)
    square.paste(resized, ((max(sides) - sides[0]) // 2, (max(sides) - sides[1]) // 2))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def truncate_to_uint8(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1], rounded down to the 256 levels of an 8-bit file; the gradient passes as if they were not.

    Shapes:
        any.

    Example:
        >>> truncate_to_uint8(torch.tensor([0.0, 0.5, 1.0])).mul(255).round().tolist()
        [0.0, 127.0, 255.0]
    """
    levels = (pixels.detach() * 255).floor() / 255
    return levels + (pixels - pixels.detach())


def tower_statistics(image_processor: Any, statistics: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that the vision tower's pixels are normalized by, for pixels in [0, 1].

    Args:
        image_processor: Of transformers.
        statistics: Those of a processor that normalizes. Without `do_normalize` pixels are only rescaled.

    Shapes:
        statistics, and what is returned: two of (3, 1, 1).
    """
    if image_processor.do_normalize:
        return statistics
    factor = image_processor.rescale_factor if image_processor.do_rescale else 1.0
    mean, std = (torch.zeros_like(one) for one in statistics)
    return mean, std + 1 / (255 * factor)
