"""What careless captions do: the picture shows something else than they say, one fact off."""

from dataclasses import replace
from random import Random

from unirl.types import Example
from unirl_shapes.vocabulary import NUMBERS, OPPOSITE

CONFUSED = {"red": "orange", "orange": "red", "yellow": "green", "green": "yellow", "blue": "purple", "purple": "blue"}
"""Neighbours in hue that a careless writer takes for each other."""


def carelessly(example: Example, rng: Random) -> Example:
    """What a picture shows whose careless caption is the example's prompt: one of its facts is another.

    The second of two things is missing, the number is one off, the color is its neighbour in hue, the relation is the
    opposite, or the two colors are swapped. A single thing is always there.

    Args:
        example: One of this world's examples.
        rng: Where chance comes from.

    Example:
        >>> from unirl_shapes.examples import colors
        >>> carelessly(colors("ring", "blue"), Random(0)).objects[0].color
        'purple'
    """
    first, *rest = example.objects
    if example.category == "counting":
        number = rng.choice([n for n in (first.count - 1, first.count + 1) if 1 <= n <= len(NUMBERS)])
        return replace(example, objects=(replace(first, count=number),))
    if example.category == "two_object":
        return replace(example, objects=(first,))
    if example.category == "colors":
        return replace(example, objects=(replace(first, color=CONFUSED[first.color or ""]),))
    if example.category == "position":
        relation, target = rest[0].relation or ("", 0)
        return replace(example, objects=(first, replace(rest[0], relation=(OPPOSITE[relation], target))))
    if example.category == "color_attr":
        return replace(example, objects=(replace(first, color=rest[0].color), replace(rest[0], color=first.color)))
    return example
