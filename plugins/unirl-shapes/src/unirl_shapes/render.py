"""Scenes to pixels: tiles are drawn once and looked up, so thousands of pictures a second come out."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl_shapes.scenes import Scene
from unirl_shapes.vocabulary import CELLS, COLORS, GRID, SHAPES

BACKGROUND = 0.96
SPAN = 3 / 4
"""The part of a cell's side that a shape takes."""

_SUPERSAMPLE = 8
_KINDS = {kind: i + 1 for i, kind in enumerate((shape, color) for shape in SHAPES for color in COLORS)}


def outline(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape that fills the square from -1 to 1, y growing downwards.

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
    """How much of each pixel a shape covers that fills a box of this size.

    Shapes:
        returns (height, width) in [0, 1].
    """
    s = _SUPERSAMPLE
    y = (np.arange(height * s) + 0.5) / (height * s) * 2 - 1
    x = (np.arange(width * s) + 0.5) / (width * s) * 2 - 1
    dense = outline(shape, x[None, :], y[:, None]).astype(np.float32)
    return dense.reshape(height, s, width, s).mean((1, 3))


def check_size(size: int) -> int:
    """The size itself, if pictures of it can be drawn.

    Raises:
        UserError: It isn't a multiple of 32 from 64 on.
    """
    if size < 64 or size % 32:
        raise UserError(f"size must be a multiple of 32 from 64 on, got {size}; try 64")
    return size


@cache
def _tiles(size: int) -> Tensor:
    """The empty cell, then one cell per kind: (1 + kinds, 3, size / 4, size / 4)."""
    cell = check_size(size) // GRID
    span = round(cell * SPAN)
    margin = (cell - span) // 2
    tiles = torch.full((1 + len(_KINDS), 3, cell, cell), BACKGROUND)
    for (shape, color), i in _KINDS.items():
        ink = torch.zeros(cell, cell)
        ink[margin : margin + span, margin : margin + span] = torch.from_numpy(coverage(shape, span, span))
        tiles[i] += ink * (torch.tensor(COLORS[color])[:, None, None] - BACKGROUND)
    return tiles


def render_batch(scenes: Sequence[Scene], size: int = 64) -> Tensor:
    """Pictures of scenes.

    Args:
        scenes: What to draw; at most one thing a cell.
        size: Side in pixels, a multiple of 32 from 64 on.

    Shapes:
        returns (B, 3, size, size) in [0, 1].

    Raises:
        UserError: The size isn't supported.
    """
    tiles = _tiles(size)
    grid = np.zeros((len(scenes), CELLS), dtype=np.int64)
    for row, scene in enumerate(scenes):
        for thing in scene:
            grid[row, thing.cell] = _KINDS[thing.shape, thing.color]
    cells = tiles[torch.from_numpy(grid)].unflatten(1, (GRID, GRID))
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(scenes), 3, size, size)


def render(scene: Scene, size: int = 64) -> Tensor:
    """The picture of one scene, as `render_batch` draws it.

    Shapes:
        returns (3, size, size) in [0, 1].
    """
    return render_batch([scene], size)[0]
