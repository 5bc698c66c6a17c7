"""Rendering of scenes. Cells are rendered once and looked up, which gives thousands of images per second."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from unirl import UserError
from unirl_shapes.scenes import Scene
from unirl_shapes.vocabulary import CELLS, COLORS, GRID, SHAPES

BACKGROUND = 0.96
SPAN = 3 / 4
"""Size of a shape relative to its cell."""

_SUPERSAMPLE = 8
_KINDS = {kind: i + 1 for i, kind in enumerate((shape, color) for shape in SHAPES for color in COLORS)}


def outline(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are inside of a shape that fills the square from -1 to 1, y growing downwards.

    Args:
        shape: One of `SHAPES`.
        x: Coordinates.
        y: Coordinates.

    Shapes:
        x, y broadcastable; returns their common shape, bool.
    """
    ax, ay, radius = np.abs(x), np.abs(y), np.hypot(x, y)
    inside = {
        "circle": radius <= 1,
        "square": np.maximum(ax, ay) <= 1,
        "triangle": (ax <= (y + 1) / 2) & (ay <= 1),
        "cross": (np.minimum(ax, ay) <= 1 / 3) & (np.maximum(ax, ay) <= 1),
        "diamond": ax + ay <= 1,
        "ring": (radius <= 1) & (radius >= 0.55),
    }
    return inside[shape]


@cache
def coverage(shape: str, height: int, width: int) -> np.ndarray:
    """Share of each pixel that is covered by a shape of a given size.

    Args:
        shape: One of `SHAPES`.
        height: In pixels.
        width: In pixels.

    Shapes:
        returns (height, width) in [0, 1].
    """
    s = _SUPERSAMPLE
    y = (np.arange(height * s) + 0.5) / (height * s) * 2 - 1
    x = (np.arange(width * s) + 0.5) / (width * s) * 2 - 1
    dense = outline(shape, x[None, :], y[:, None]).astype(np.float32)
    return dense.reshape(height, s, width, s).mean((1, 3))


def check_size(size: int) -> int:
    """Validate the size of images.

    Args:
        size: Side in pixels.

    Returns:
        The size.

    Raises:
        UserError: it is not a multiple of 32, or below 64.
    """
    if size < 64 or size % 32:
        raise UserError(f"shapes: size {size}; it must be a multiple of 32 and at least 64")
    return size


@cache
def _tiles(size: int) -> Tensor:
    """The empty cell, then one cell of each shape and color: (1 + kinds, 3, size / 4, size / 4)."""
    cell = check_size(size) // GRID
    span = round(cell * SPAN)
    margin = (cell - span) // 2
    tiles = torch.full((1 + len(_KINDS), 3, cell, cell), BACKGROUND, dtype=torch.float32)
    for (shape, color), i in _KINDS.items():
        ink = torch.zeros(cell, cell, dtype=torch.float32)
        ink[margin : margin + span, margin : margin + span] = torch.from_numpy(coverage(shape, span, span))
        tiles[i] += ink * (torch.tensor(COLORS[color], dtype=torch.float32)[:, None, None] - BACKGROUND)
    return tiles


def render_batch(scenes: Sequence[Scene], size: int = 64) -> Tensor:
    """Render images of scenes.

    Args:
        scenes: The scenes, with at most one object in each cell.
        size: Side in pixels: a multiple of 32, at least 64.

    Shapes:
        returns (B, 3, size, size) in [0, 1].

    Raises:
        UserError: the size is not supported.
    """
    tiles = _tiles(size)
    grid = np.zeros((len(scenes), CELLS), dtype=np.int64)
    for row, scene in enumerate(scenes):
        for item in scene:
            grid[row, item.cell] = _KINDS[item.shape, item.color]
    cells = tiles[torch.from_numpy(grid)].unflatten(1, (GRID, GRID))
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(scenes), 3, size, size)


def render(scene: Scene, size: int = 64) -> Tensor:
    """Render the image of one scene.

    Args:
        scene: The scene.
        size: Side in pixels: a multiple of 32, at least 64.

    Shapes:
        returns (3, size, size) in [0, 1].
    """
    return render_batch([scene], size)[0]
