"""Noisy captions: the image differs from its caption in one fact."""

from dataclasses import replace
from random import Random

from unirl import Example
from unirl_shapes.vocabulary import NUMBERS, OPPOSITE

CONFUSED = {"red": "orange", "orange": "red", "yellow": "green", "green": "yellow", "blue": "purple", "purple": "blue"}
"""Colors of neighboring hue, which noisy captions confuse."""


def change_fact(example: Example, rng: Random) -> Example:
    """What an image with a noisy caption shows: the example with one fact changed.

    The second of two objects is missing, the number differs by one, the color has the neighboring hue, the relation is
    the opposite, or the two colors are swapped. A single object is never changed.

    Args:
        example: An example of the shapes world, whose prompt is the caption.
        rng: The only source of randomness.

    Example:
        >>> from unirl_shapes.examples import colors
        >>> change_fact(colors("ring", "blue"), Random(0)).objects[0].color
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
