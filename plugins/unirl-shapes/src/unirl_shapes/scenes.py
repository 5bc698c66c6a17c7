"""Scenes: what stands in which cell. Sampling is a pure function of the generator that is passed in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from random import Random

from unirl.judges.verdict import Box, relation
from unirl.types import Example
from unirl_shapes.vocabulary import CELLS, COLORS, GRID, OPPOSITE, SHAPES


@dataclass(frozen=True)
class Thing:
    """One shape in one cell of the grid.

    Args:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        cell: 0 to 15, row by row.
    """

    shape: str
    color: str
    cell: int


Scene = tuple[Thing, ...]
Kind = tuple[str, str]
"""Shape and color: a thing that has no cell yet."""


def relation_of(cell_a: int, cell_b: int) -> set[str]:
    """Where a thing in cell A stands, seen from one in cell B, by GenEval's rule.

    Example:
        >>> relation_of(0, 1), sorted(relation_of(0, 5))
        ({'left of'}, ['above', 'left of'])
    """
    return relation(_box(cell_a), _box(cell_b))


def _box(cell: int) -> Box:
    row, column = divmod(cell, GRID)
    return (column + 1 / 8, row + 1 / 8, column + 7 / 8, row + 7 / 8)


@cache
def _cell_pairs(name: str, holds: bool) -> tuple[tuple[int, int], ...]:
    pairs = ((a, b) for a in range(CELLS) for b in range(CELLS) if a != b)
    return tuple((a, b) for a, b in pairs if (name in relation_of(a, b)) == holds)


def scene_for(example: Example, rng: Random, extras: int = 0) -> Scene:
    """A scene that shows what the example asks for, and nothing that makes its question ambiguous.

    Args:
        example: One of this world's examples.
        rng: Where chance comes from.
        extras: How many things of classes the example doesn't mention stand around.
    """
    wanted = example.objects[-1].relation
    kinds = _wanted(example, rng)
    pairs = None if wanted is None else _cell_pairs(wanted[0], True)
    return _finish(example, kinds, pairs, rng, extras)


def near_miss(example: Example, rng: Random, extras: int = 0) -> Scene:
    """A scene that misses what the example asks for by little, or shows it in an ambiguous way.

    Wrong or swapped colors, a wrong number, a missing thing, another relation, or a second thing of a mentioned class.

    Args:
        example: One of this world's examples.
        rng: Where chance comes from.
        extras: How many things of classes the example doesn't mention stand around.
    """
    kinds, pairs = _MISSES[example.category](example, rng)
    return _finish(example, kinds, pairs, rng, extras)


def clutter(rng: Random, n: int) -> Scene:
    """`n` things of any kind in different cells, 0 to 16."""
    return _place([_random_kind(rng, SHAPES) for _ in range(n)], [], rng)


Missed = tuple[list[Kind], tuple[tuple[int, int], ...] | None]
"""What to show, and the pairs of cells the first two may take where it matters: (thing, the one it is related to)."""


def _miss_presence(example: Example, rng: Random) -> Missed:
    """One thing (of two: one or both) gives way to something else, or to nothing."""
    kinds = _wanted(example, rng)
    lost = rng.sample(range(len(kinds)), rng.choice(range(1, len(kinds) + 1)))
    others = [_random_kind(rng, _unmentioned(example)) for _ in lost if rng.random() < 0.8]
    return [kind for i, kind in enumerate(kinds) if i not in lost] + others, None


def _miss_count(example: Example, rng: Random) -> Missed:
    """Another number of the same shape, often next to it; none and more than four included."""
    item = example.objects[0]
    near = [n for n in (item.count - 1, item.count + 1) if n >= 0]
    number = rng.choice(near if rng.random() < 0.4 else [n for n in range(8) if n != item.count])
    return [(item.name, _random_color(rng)) for _ in range(number)], None


def _miss_color(example: Example, rng: Random) -> Missed:
    """A wrong color, colors swapped, a thing missing, or a second one of another color."""
    kinds = _wanted(example, rng)
    i = rng.randrange(len(kinds))
    shape, color = kinds[i]
    way = rng.choice(("wrong", "wrong", "swapped", "swapped", "missing", "second"))
    if way == "swapped" and len(kinds) == 2:
        kinds = [(kinds[0][0], kinds[1][1]), (kinds[1][0], kinds[0][1])]
    elif way == "missing":
        kinds[i] = _random_kind(rng, _unmentioned(example))
    elif way == "second":
        kinds.append((shape, _random_color(rng, color)))
    else:
        kinds[i] = (shape, _random_color(rng, color))
    return kinds, None


def _miss_position(example: Example, rng: Random) -> Missed:
    """The opposite or another relation, a thing missing, or a second one."""
    name = (example.objects[-1].relation or ("", 0))[0]
    kinds = _wanted(example, rng)
    way = rng.choice(("opposite", "opposite", "other", "other", "missing", "second"))
    i = rng.randrange(2)
    if way == "missing":
        kinds[i] = _random_kind(rng, _unmentioned(example))
    elif way == "second":
        kinds.append((kinds[i][0], _random_color(rng)))
    elif way == "opposite":
        return kinds, _cell_pairs(OPPOSITE[name], True)
    else:
        return kinds, _cell_pairs(name, False)
    return kinds, None


_MISSES: dict[str, Callable[[Example, Random], Missed]] = {
    "single_object": _miss_presence,
    "two_object": _miss_presence,
    "counting": _miss_count,
    "colors": _miss_color,
    "position": _miss_position,
    "color_attr": _miss_color,
}


def _wanted(example: Example, rng: Random) -> list[Kind]:
    """The kinds an example asks for, the thing with a relation before its target."""
    items = reversed(example.objects) if example.category == "position" else example.objects
    return [(item.name, item.color or _random_color(rng)) for item in items for _ in range(item.count)]


def _unmentioned(example: Example) -> list[str]:
    mentioned = {item.name for item in example.objects}
    return [shape for shape in SHAPES if shape not in mentioned]


def _random_color(rng: Random, but: str | None = None) -> str:
    return rng.choice([color for color in COLORS if color != but])


def _random_kind(rng: Random, shapes: Iterable[str]) -> Kind:
    return rng.choice(list(shapes)), _random_color(rng)


def _finish(
    example: Example, kinds: list[Kind], pairs: tuple[tuple[int, int], ...] | None, rng: Random, extras: int
) -> Scene:
    kinds = kinds + [_random_kind(rng, _unmentioned(example)) for _ in range(extras)]
    return _place(kinds, [] if pairs is None else list(rng.choice(pairs)), rng)


def _place(kinds: list[Kind], cells: list[int], rng: Random) -> Scene:
    """Things in the cells that are given, then in free ones at random."""
    free = [cell for cell in range(CELLS) if cell not in cells]
    cells = cells + rng.sample(free, len(kinds) - len(cells))
    return tuple(Thing(shape, color, cell) for (shape, color), cell in zip(kinds, cells, strict=True))
