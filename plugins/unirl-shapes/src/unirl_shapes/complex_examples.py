"""Examples of the category "complex": prompts that combine what the other categories ask for singly.

Three things, perhaps with colors, numbers and a place; something that must not be there; more of this than of that.
"""

import re
from functools import cache
from itertools import combinations, permutations
from random import Random

from unirl import Example, Item
from unirl_shapes.vocabulary import COLORS, COMPLEX, NUMBERS, RELATIONS, SHAPES, described, plural, with_article

WORDS = ("no", "more", "than", "there", "yes")
"""The words that this category adds to those of the other ones."""
VARIANTS = 40
"""Three shapes in an order come in this many combinations of numbers and colors, and in as many with a place."""
_COMPARISON = re.compile(r"a photo of more (\w+) than (\w+)")


def three_objects(things: tuple[Item, ...], relation: str | None = None) -> Example:
    """An example of three things.

    Its first question is whether all of them are there: without one of them the image is wrong, whatever else it shows,
    and all other questions presuppose them. Where colors, numbers or a place are asked for, all numbers must be exact.

    Args:
        things: Three things of different shapes. Two that are related are single.
        relation: Where the first is as seen from the second, or None.
    """
    phrases = [described(item.name, item.count, item.color) for item in things]
    first = " and ".join(phrases[:2]) if relation is None else f"{phrases[0]} {relation} {phrases[1]}"
    names = [item.name for item in things]
    question, answer = f"do you see {' and '.join(map(with_article, names))} ?", " and ".join(names)
    plain = relation is None and all(item == Item(item.name) for item in things)
    exclude = () if plain else tuple(Item(item.name, item.count + 1) for item in things)
    if relation is not None:  # relations refer to earlier items
        placed, target, third = things
        things = (target, Item(placed.name, 1, placed.color, (relation, 0)), third)
    return Example(f"a photo of {first} and {phrases[2]}", question, answer, COMPLEX, things, exclude)


def negation(shape: str, absent: str, color: str | None = None) -> Example:
    """An example of a shape and another one that must not be there.

    Its first question asks for both facts at once: one of them alone would accept the blank image, or the forbidden
    shape.
    """
    prompt = f"a photo of {described(shape, 1, color)} and no {absent}"
    question = f"do you see {with_article(shape)} and no {absent} ?"
    exclude = (Item(absent), *((Item(shape, 2),) if color else ()))
    return Example(prompt, question, "yes", COMPLEX, (Item(shape, 1, color),), exclude)


def comparison(more: str, fewer: str) -> Example:
    """An example of more objects of one shape than of another, of which there is at least one.

    Its first question is the comparison, which only both numbers together decide.
    """
    more_than = f"more {plural(more)} than {plural(fewer)}"
    objects = (Item(more, 2), Item(fewer))
    return Example(f"a photo of {more_than}", f"are there {more_than} ?", "yes", COMPLEX, objects)


def comparison_of(example: Example) -> str | None:
    """The question that must be answered "yes" about an image of a comparison; None for other examples.

    Args:
        example: Any example. Its prompt decides, so that it may ask another question.

    Example:
        >>> comparison_of(comparison("circle", "square"))
        'are there more circles than squares ?'
    """
    match = _COMPARISON.fullmatch(example.prompt) if example.category == COMPLEX else None
    return match and f"are there more {match[1]} than {match[2]} ?"


def families(example: Example) -> list[tuple[str, frozenset[str]]]:
    """The families of the other categories that a complex example combines: a category and its shapes.

    It is held out if one of them is, see `unirl_shapes.examples.HELD_OUT`: "two_object" with every pair of its shapes,
    also a forbidden one; "position" with two that are related; "color_attr" with two that have colors, "colors" with a
    single one; "counting" with a number above one, and with both shapes of a comparison; "single_object" with a shape
    that is alone.

    Args:
        example: An example of this category.

    Example:
        >>> [(category, sorted(shapes)) for category, shapes in families(negation("circle", "square"))]
        [('two_object', ['circle', 'square']), ('single_object', ['circle'])]
    """
    names = dict.fromkeys(item.name for item in (*example.objects, *example.exclude))
    found = [("two_object", frozenset(pair)) for pair in combinations(names, 2)]
    colored = [item.name for item in example.objects if item.color]
    found += [("color_attr", frozenset(pair)) for pair in combinations(colored, 2)]
    if len(colored) == 1:
        found.append(("colors", frozenset(colored)))
    if len(example.objects) == 1:
        found.append(("single_object", frozenset({example.objects[0].name})))
    for item in example.objects:
        if item.relation is not None:
            found.append(("position", frozenset({item.name, example.objects[item.relation[1]].name})))
        if item.count > 1 or comparison_of(example):
            found.append(("counting", frozenset({item.name})))
    return found


@cache
def complex_kinds() -> tuple[tuple[Example, ...], ...]:
    """All examples by kind, in a fixed order: three things, with a place, negations, comparisons.

    Numbers and colors of three things are a random part of all combinations, always the same ones.
    """
    pairs, triples = list(permutations(SHAPES, 2)), list(permutations(SHAPES, 3))
    plain = [three_objects(tuple(map(Item, names))) for names in triples]
    return (
        (*plain, *(e for names in triples for e in _variants(names, is_related=False))),
        tuple(e for names in triples for e in _variants(names, is_related=True)),
        tuple(negation(a, b, color) for a, b in pairs for color in (None, *COLORS)),
        tuple(comparison(a, b) for a, b in pairs),
    )


def is_plain(example: Example) -> bool:
    """Whether an example has no colors, numbers and places: what pre-training may use.

    Args:
        example: An example of this category.
    """
    exact = len(example.objects) == 3 and bool(example.exclude)
    return not exact and not any(item.color for item in example.objects)


def _variants(names: tuple[str, ...], is_related: bool) -> list[Example]:
    """Examples of three shapes with random numbers, colors and relations."""
    rng, found = Random(f"complex {' '.join(names)} {is_related}"), dict[str, Example]()
    while len(found) < VARIANTS:
        relation = rng.choice(RELATIONS) if is_related else None
        numbers = [1 if rng.random() < 0.5 else rng.randint(2, len(NUMBERS)) for _ in names]
        if is_related:
            numbers[:2] = [1, 1]
        colored = rng.sample(range(3), rng.randint(0, 3))
        colors = dict(zip(colored, rng.sample(list(COLORS), len(colored)), strict=True))
        things = tuple(Item(name, n, colors.get(i)) for i, (name, n) in enumerate(zip(names, numbers, strict=True)))
        example = three_objects(things, relation)
        if sum(numbers) <= 9 and (is_related or not is_plain(example)):
            found[example.prompt] = example
    return list(found.values())
