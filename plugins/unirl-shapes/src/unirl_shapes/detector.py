"""Detects shapes in an image: foreground by color, connected regions, comparison of outlines with templates."""

from functools import cache

import numpy as np
from scipy import ndimage
from torch import Tensor

from unirl.judges import Detection
from unirl_shapes.render import BACKGROUND, SPAN, coverage
from unirl_shapes.scenes import Scene, SceneObject
from unirl_shapes.vocabulary import COLORS, GRID, SHAPES

MIN_CONFIDENCE = 0.76
"""Minimum overlap of a region with the best template."""

_MIN_SHARE = 0.4  # Least share of a color in a pixel of a shape; with less, blurred edges enlarge shapes.
_MAX_DISTANCE = 0.22  # Largest distance of a pixel from a mixture of the background and a color of the palette.
_MIN_SIDE, _MAX_SIDE = 0.7, 1.4  # Relative to the rendered size; larger regions are merged shapes.
_MIN_ASPECT = 0.8
_PADDINGS = (0, 1, ((1, 0), (0, 0)))  # Blur removes the tips of a diamond (4) and a triangle (1).
_CONNECTIVITY = np.ones((3, 3), dtype=bool)


def detect(pixels: Tensor) -> list[Detection]:
    """Detect all shapes in an image.

    Args:
        pixels: The image, in [0, 1].

    Returns:
        Detections with a confidence above `MIN_CONFIDENCE`.

    Shapes:
        pixels (3, H, H).
    """
    labels = _color_labels(pixels.detach().float().cpu().numpy())
    side = labels.shape[-1] / GRID * SPAN
    detections = []
    for index, color in enumerate(COLORS):
        regions, _ = ndimage.label(labels == index, _CONNECTIVITY)
        for number, window in enumerate(ndimage.find_objects(regions), start=1):
            detection = _classify(regions[window] == number, window, color, side)
            if detection is not None and detection.confidence > MIN_CONFIDENCE:
                detections.append(detection)
    return detections


def detect_scene(pixels: Tensor) -> Scene:
    """The scene that an image shows: each detected shape in the cell of its center.

    Args:
        pixels: The image, in [0, 1].

    Shapes:
        pixels (3, H, H).

    Example:
        >>> from unirl_shapes.render import render
        >>> detect_scene(render((SceneObject("ring", "blue", 6),)))
        (SceneObject(shape='ring', color='blue', cell=6),)
    """
    side, scene = pixels.shape[-1] / GRID, []
    for found in detect(pixels):
        column, row = (int((found.box[i] + found.box[i + 2]) / 2 // side) for i in (0, 1))
        scene.append(SceneObject(found.name, found.color or "", row * GRID + column))
    return tuple(scene)


def _color_labels(pixels: np.ndarray) -> np.ndarray:
    """Index of each pixel's color in the palette, or -1: (3, H, W) to (H, W).

    Blurred edges mix a color with the background, so distances are measured to mixtures of the two.
    """
    colors = np.array(list(COLORS.values()), dtype=np.float32) - BACKGROUND
    # Numbers outside of [0, 1] are clipped; NaN becomes black, which is not in the palette.
    offset = np.clip(np.nan_to_num(pixels), 0, 1).reshape(3, -1).T - BACKGROUND
    share = np.clip(offset @ colors.T / (colors**2).sum(1), 0, 1)
    distance = np.linalg.norm(offset[:, None] - share[..., None] * colors, axis=-1)
    best = distance.argmin(1)
    rows = np.arange(len(best))
    is_foreground = (share[rows, best] > _MIN_SHARE) & (distance[rows, best] < _MAX_DISTANCE)
    return np.where(is_foreground, best, -1).reshape(pixels.shape[1:])


def _classify(region: np.ndarray, window: tuple[slice, slice], color: str, side: float) -> Detection | None:
    """The shape whose template overlaps a region most; None for regions of another size or aspect ratio."""
    height, width = region.shape
    if not _MIN_SIDE * side <= min(height, width) <= max(height, width) <= _MAX_SIDE * side:
        return None
    if min(height, width) < _MIN_ASPECT * max(height, width):
        return None
    overlaps: dict[str, float] = {}
    for padding in _PADDINGS:
        padded = np.pad(region, padding)
        for shape in SHAPES:
            overlap = _overlap(padded, _template(shape, *padded.shape))
            overlaps[shape] = max(overlap, overlaps.get(shape, 0.0))
    best = max(overlaps, key=lambda name: overlaps[name])
    y, x = window
    return Detection(best, (x.start, y.start, x.stop, y.stop), overlaps[best], color)


@cache
def _template(shape: str, height: int, width: int) -> np.ndarray:
    return coverage(shape, height, width) > _MIN_SHARE


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
