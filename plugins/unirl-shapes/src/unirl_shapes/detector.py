"""Finds shapes in a picture: foreground by color, connected regions, outline against templates."""

from functools import cache

import numpy as np
from scipy import ndimage
from torch import Tensor

from unirl.judges.verdict import Detection
from unirl_shapes.render import BACKGROUND, SPAN, coverage
from unirl_shapes.vocabulary import COLORS, GRID, SHAPES

LEAST_CONFIDENCE = 0.76
"""Overlap with the best outline below which a region is a blob and no shape."""

_INK = 0.4  # A pixel belongs to a shape from this much of its color on; less would swell blurred edges.
_FARTHEST = 0.22  # A pixel farther from every mix of background and palette color has no color of this world.
_LEAST_SIDE, _MOST_SIDE = 0.7, 1.4  # Of a shape's side as rendered: smaller ones are crumbs, larger ones merged.
_LEAST_ASPECT = 0.8
_TIPS = (0, 1, ((1, 0), (0, 0)))  # Blur eats a diamond's four tips and a triangle's upper one: rows to give back.
_CROSSING = np.ones((3, 3), dtype=bool)


def detect(picture: Tensor) -> list[Detection]:
    """Every shape in a picture, with confidences above `LEAST_CONFIDENCE`.

    Shapes:
        picture (3, H, H) in [0, 1].
    """
    labels = _color_labels(picture.detach().float().cpu().numpy())
    side = labels.shape[-1] / GRID * SPAN
    found = []
    for index, color in enumerate(COLORS):
        regions, _ = ndimage.label(labels == index, _CROSSING)
        for number, window in enumerate(ndimage.find_objects(regions), start=1):
            detection = _recognise(regions[window] == number, window, color, side)
            if detection is not None and detection.confidence > LEAST_CONFIDENCE:
                found.append(detection)
    return found


def _color_labels(picture: np.ndarray) -> np.ndarray:
    """The index of each pixel's palette color, -1 for background and for colors of no shape: (3, H, W) to (H, W).

    A blurred edge mixes a color with the background, so distance is measured to that mix, not to the pure color.
    """
    inks = np.array(list(COLORS.values()), dtype=np.float32) - BACKGROUND
    # Nothing but numbers in [0, 1] may enter: a NaN becomes black, which is no color of this world.
    offset = np.clip(np.nan_to_num(picture), 0, 1).reshape(3, -1).T - BACKGROUND
    share = np.clip(offset @ inks.T / (inks**2).sum(1), 0, 1)
    distance = np.linalg.norm(offset[:, None] - share[..., None] * inks, axis=-1)
    best = distance.argmin(1)
    rows = np.arange(len(best))
    is_ink = (share[rows, best] > _INK) & (distance[rows, best] < _FARTHEST)
    return np.where(is_ink, best, -1).reshape(picture.shape[1:])


def _recognise(region: np.ndarray, window: tuple[slice, slice], color: str, side: float) -> Detection | None:
    """The shape whose outline overlaps a region most, or None for crumbs, smears and merged shapes."""
    height, width = region.shape
    if not _LEAST_SIDE * side <= min(height, width) <= max(height, width) <= _MOST_SIDE * side:
        return None
    if min(height, width) < _LEAST_ASPECT * max(height, width):
        return None
    overlaps: dict[str, float] = {}
    for tips in _TIPS:
        padded = np.pad(region, tips)
        for shape in SHAPES:
            overlap = _overlap(padded, _template(shape, *padded.shape))
            overlaps[shape] = max(overlap, overlaps.get(shape, 0.0))
    best = max(overlaps, key=lambda name: overlaps[name])
    y, x = window
    return Detection(best, (x.start, y.start, x.stop, y.stop), overlaps[best], color)


@cache
def _template(shape: str, height: int, width: int) -> np.ndarray:
    return coverage(shape, height, width) > _INK


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
