"""Scenes: objects in the cells of a grid. Sampling depends on the given generator only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from random import Random

from unirl import Example
from unirl.judges import Box, spatial_relations
from unirl_shapes.vocabulary import CELLS, COLORS, GRID, OPPOSITE, SHAPES


@dataclass(frozen=True)
class SceneObject:
    """A shape in a cell of the grid.

    Args:
        shape: One of `SHAPES`.
        color: One of `COLORS`.
        cell: 0 to 15, row by row.
    """

    shape: str
    color: str
    cell: int


Scene = tuple[SceneObject, ...]
Kind = tuple[str, str]
"""Shape and color of an object."""


def cell_relations(cell: int, reference: int) -> set[str]:
    """Where an object in a cell is as seen from an object in another cell, by GenEval's rule.

    Args:
        cell: Cell of the object, 0 to 15, row by row.
        reference: Cell of the other one.

    Example:
        >>> cell_relations(0, 1), sorted(cell_relations(0, 5))
        ({'left of'}, ['above', 'left of'])
    """
    return spatial_relations(_box(cell), _box(reference))


def _box(cell: int) -> Box:
    row, column = divmod(cell, GRID)
    return (column + 1 / 8, row + 1 / 8, column + 7 / 8, row + 7 / 8)


@cache
def _cell_pairs(name: str, holds: bool) -> tuple[tuple[int, int], ...]:
    pairs = ((a, b) for a in range(CELLS) for b in range(CELLS) if a != b)
    return tuple((a, b) for a, b in pairs if (name in cell_relations(a, b)) == holds)


def scene_for(example: Example, rng: Random, extras: int = 0) -> Scene:
    """A scene that is correct for an example, and in which its question is not ambiguous.

    Args:
        example: An example of the shapes world.
        rng: The only source of randomness.
        extras: Number of additional objects, of shapes that the example does not name.
    """
    relation = example.objects[-1].relation
    kinds = _required_kinds(example, rng)
    pairs = None if relation is None else _cell_pairs(relation[0], True)
    return _finish(example, kinds, pairs, rng, extras)


def near_miss(example: Example, rng: Random, extras: int = 0) -> Scene:
    """A scene that is nearly correct for an example, or in which its question is ambiguous.

    It has wrong or swapped colors, a wrong number, a missing object, another relation, or a second object of a shape
    that the example names.

    Args:
        example: An example of the shapes world.
        rng: The only source of randomness.
        extras: Number of additional objects, of shapes that the example does not name.
    """
    kinds, pairs = _NEAR_MISSES[example.category](example, rng)
    return _finish(example, kinds, pairs, rng, extras)


def random_scene(rng: Random, count: int) -> Scene:
    """A scene of random objects in different cells.

    Args:
        rng: The only source of randomness.
        count: Number of objects, 0 to 16.
    """
    return _place([_random_kind(rng, SHAPES) for _ in range(count)], [], rng)


Content = tuple[list[Kind], tuple[tuple[int, int], ...] | None]
"""Kinds of a scene, and the allowed pairs of cells of the first two, where these are related."""


def _miss_presence(example: Example, rng: Random) -> Content:
    """One object (of two: one or both) is replaced, or missing."""
    kinds = _required_kinds(example, rng)
    removed = rng.sample(range(len(kinds)), rng.choice(range(1, len(kinds) + 1)))
    others = [_random_kind(rng, _other_shapes(example)) for _ in removed if rng.random() < 0.8]
    return [kind for i, kind in enumerate(kinds) if i not in removed] + others, None


def _miss_count(example: Example, rng: Random) -> Content:
    """Another number of the same shape, often a neighboring one; also none, or more than four."""
    item = example.objects[0]
    near = [n for n in (item.count - 1, item.count + 1) if n >= 0]
    number = rng.choice(near if rng.random() < 0.4 else [n for n in range(8) if n != item.count])
    return [(item.name, _random_color(rng)) for _ in range(number)], None


def _miss_color(example: Example, rng: Random) -> Content:
    """A wrong color, swapped colors, a missing object, or a second one of another color."""
    kinds = _required_kinds(example, rng)
    i = rng.randrange(len(kinds))
    shape, color = kinds[i]
    error = rng.choice(("wrong", "wrong", "swapped", "swapped", "missing", "second"))
    if error == "swapped" and len(kinds) == 2:
        kinds = [(kinds[0][0], kinds[1][1]), (kinds[1][0], kinds[0][1])]
    elif error == "missing":
        kinds[i] = _random_kind(rng, _other_shapes(example))
    elif error == "second":
        kinds.append((shape, _random_color(rng, color)))
    else:
        kinds[i] = (shape, _random_color(rng, color))
    return kinds, None


def _miss_position(example: Example, rng: Random) -> Content:
    """The opposite or another relation, a missing object, or a second one."""
    name = (example.objects[-1].relation or ("", 0))[0]
    kinds = _required_kinds(example, rng)
    error = rng.choice(("opposite", "opposite", "other", "other", "missing", "second"))
    i = rng.randrange(2)
    if error == "missing":
        kinds[i] = _random_kind(rng, _other_shapes(example))
    elif error == "second":
        kinds.append((kinds[i][0], _random_color(rng)))
    elif error == "opposite":
        return kinds, _cell_pairs(OPPOSITE[name], True)
    else:
        return kinds, _cell_pairs(name, False)
    return kinds, None


_NEAR_MISSES: dict[str, Callable[[Example, Random], Content]] = {
    "single_object": _miss_presence,
    "two_object": _miss_presence,
    "counting": _miss_count,
    "colors": _miss_color,
    "position": _miss_position,
    "color_attr": _miss_color,
}


def _required_kinds(example: Example, rng: Random) -> list[Kind]:
    """The kinds that an example asks for; an object with a relation comes before its target."""
    items = reversed(example.objects) if example.category == "position" else example.objects
    return [(item.name, item.color or _random_color(rng)) for item in items for _ in range(item.count)]


def _other_shapes(example: Example) -> list[str]:
    named = {item.name for item in example.objects}
    return [shape for shape in SHAPES if shape not in named]


def _random_color(rng: Random, exclude: str | None = None) -> str:
    return rng.choice([color for color in COLORS if color != exclude])


def _random_kind(rng: Random, shapes: Iterable[str]) -> Kind:
    return rng.choice(list(shapes)), _random_color(rng)


def _finish(
    example: Example, kinds: list[Kind], pairs: tuple[tuple[int, int], ...] | None, rng: Random, extras: int
) -> Scene:
    kinds = kinds + [_random_kind(rng, _other_shapes(example)) for _ in range(extras)]
    return _place(kinds, [] if pairs is None else list(rng.choice(pairs)), rng)


def _place(kinds: list[Kind], cells: list[int], rng: Random) -> Scene:
    """Place objects in the given cells, then in random free ones."""
    free = [cell for cell in range(CELLS) if cell not in cells]
    cells = cells + rng.sample(free, len(kinds) - len(cells))
    return tuple(SceneObject(shape, color, cell) for (shape, color), cell in zip(kinds, cells, strict=True))
