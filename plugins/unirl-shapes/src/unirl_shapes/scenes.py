"""Scenes: objects in the cells of a grid. Sampling depends on the given generator only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from random import Random

from unirl import Example, Item
from unirl.judges import Box, spatial_relations
from unirl_shapes.complex_examples import comparison_of
from unirl_shapes.vocabulary import CELLS, COLORS, COMPLEX, GRID, NUMBERS, OPPOSITE, SHAPES


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
    return spatial_relations(cell_box(cell), cell_box(reference))


def cell_box(cell: int) -> Box:
    """The box of an object in a cell, in cells.

    Args:
        cell: 0 to 15, row by row.
    """
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
    relation = _relation(example)
    kinds = _required_kinds(example, rng)
    pairs = None if relation is None else _cell_pairs(relation, True)
    return _finish(example, kinds, pairs, rng, extras)


def near_miss(example: Example, rng: Random, extras: int = 0) -> Scene:
    """A scene that is nearly correct for an example, or in which its question is ambiguous.

    It has wrong or swapped colors, a wrong number, a missing object, another relation, a second object of a shape that
    the example names, or one that must not be there; or numbers compare as equal or the other way round.

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
    name = _relation(example) or ""
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


def _miss_complex(example: Example, rng: Random) -> Content:
    """One fact is wrong, of those that the example has: shapes, colors, numbers, the place, what must not be there."""
    if comparison_of(example):
        return _miss_comparison(example, rng), None
    relation, kinds = _relation(example), _required_kinds(example, rng)
    colored = [item.name for item in example.objects if item.color]
    exact = [item.name for item in example.objects if Item(item.name, item.count + 1) in example.exclude]
    absent = [item.name for item in example.exclude if item.count == 1]
    has_fact = {"missing": True, "color": colored, "number": exact, "relation": relation, "absent": absent}
    error = rng.choice([name for name, has in has_fact.items() if has])
    if relation and error == "relation":
        return kinds, _cell_pairs(OPPOSITE[relation], True) if rng.random() < 0.5 else _cell_pairs(relation, False)
    if error == "color":
        kinds = _change_color(kinds, colored, rng)
    elif error == "number":
        kinds = _change_number(kinds, rng.choice(exact), rng)
    elif error == "absent":
        kinds.append((rng.choice(absent), _random_color(rng)))
    else:
        removed = rng.sample([item.name for item in example.objects], 1)
        kinds = [kind for kind in kinds if kind[0] not in removed]
        kinds += [_random_kind(rng, _other_shapes(example)) for _ in removed if rng.random() < 0.8]
    return kinds, _cell_pairs(relation, True) if relation else None


def _miss_comparison(example: Example, rng: Random) -> list[Kind]:
    """As many of both, more of the other one, or none of one of them."""
    more, fewer = sorted((rng.randint(1, len(NUMBERS)), rng.randint(1, len(NUMBERS))), reverse=True)
    error = rng.choice(("equal", "equal", "reversed", "reversed", "missing"))
    if error == "equal":
        fewer = more
    elif error == "missing":
        more, fewer = rng.choice(((more, 0), (0, more)))
    else:
        more, fewer = fewer, more
    return _numbers_of(example, more, fewer, rng)


def _numbers_of(example: Example, more: int, fewer: int, rng: Random) -> list[Kind]:
    """So many of the two shapes that a comparison names."""
    numbers = zip(example.objects, (more, fewer), strict=True)
    return [(item.name, _random_color(rng)) for item, number in numbers for _ in range(number)]


def _change_color(kinds: list[Kind], colored: list[str], rng: Random) -> list[Kind]:
    """Swap the colors of two shapes, or give an object or all of a shape another color."""
    old = dict(kinds)
    if len(colored) > 1 and rng.random() < 0.5:
        one, two = rng.sample(colored, 2)
        new = {one: old[two], two: old[one]}
        return [(shape, new.get(shape, color)) for shape, color in kinds]
    name = rng.choice(colored)
    indices = [i for i, (shape, _) in enumerate(kinds) if shape == name]
    changed, color = rng.sample(indices, rng.choice((1, len(indices)))), _random_color(rng, old[name])
    return [(name, color) if i in changed else kind for i, kind in enumerate(kinds)]


def _change_number(kinds: list[Kind], name: str, rng: Random) -> list[Kind]:
    """One object of a shape more, or one less where there are several."""
    of_shape = [kind for kind in kinds if kind[0] == name]
    if len(of_shape) == 1 or rng.random() < 0.5:
        return [*kinds, of_shape[0]]
    last = max(i for i, kind in enumerate(kinds) if kind[0] == name)
    return kinds[:last] + kinds[last + 1 :]


_NEAR_MISSES: dict[str, Callable[[Example, Random], Content]] = {
    "single_object": _miss_presence,
    "two_object": _miss_presence,
    "counting": _miss_count,
    "colors": _miss_color,
    "position": _miss_position,
    "color_attr": _miss_color,
    COMPLEX: _miss_complex,
}


def _relation(example: Example) -> str | None:
    return next((item.relation[0] for item in example.objects if item.relation is not None), None)


def _required_kinds(example: Example, rng: Random) -> list[Kind]:
    """The kinds that an example asks for; an object with a relation comes before its target, and both before others."""
    if comparison_of(example):
        fewer = rng.randint(1, len(NUMBERS) - 1)
        return _numbers_of(example, rng.randint(fewer + 1, len(NUMBERS)), fewer, rng)
    items = list(example.objects)
    if _relation(example) is not None:
        items[:2] = items[1::-1]
    return [(item.name, item.color or _random_color(rng)) for item in items for _ in range(item.count)]


def _other_shapes(example: Example) -> list[str]:
    named = {item.name for item in (*example.objects, *example.exclude)}
    return [shape for shape in SHAPES if shape not in named]


def _random_color(rng: Random, exclude: str | None = None) -> str:
    return rng.choice([color for color in COLORS if color != exclude])


def _random_kind(rng: Random, shapes: Iterable[str]) -> Kind:
    return rng.choice(list(shapes)), _random_color(rng)


def _finish(
    example: Example, kinds: list[Kind], pairs: tuple[tuple[int, int], ...] | None, rng: Random, extras: int
) -> Scene:
    others = _other_shapes(example)
    extras = min(extras, CELLS - len(kinds)) if others else 0
    kinds = kinds + [_random_kind(rng, others) for _ in range(extras)]
    return _place(kinds, [] if pairs is None else list(rng.choice(pairs)), rng)


def _place(kinds: list[Kind], cells: list[int], rng: Random) -> Scene:
    """Place objects in the given cells, then in random free ones."""
    free = [cell for cell in range(CELLS) if cell not in cells]
    cells = cells + rng.sample(free, len(kinds) - len(cells))
    return tuple(SceneObject(shape, color, cell) for (shape, color), cell in zip(kinds, cells, strict=True))
