"""Examples: prompts with their questions and answers, what is held out, and the truth about any scene.

All lower case, words only: the world's own models read whole words.
"""

from functools import cache
from itertools import permutations
from random import Random
from typing import Literal

from unirl.types import Example, Item
from unirl_shapes.scenes import Scene, Thing, relation_of
from unirl_shapes.vocabulary import (
    CATEGORIES,
    COLORS,
    DIRECTIONS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    counted,
    plural,
    with_article,
)

Split = Literal["train", "held_out", "taught"]
HELD_OUT: dict[str, tuple[frozenset[str], ...]] = {
    category: tuple(map(frozenset, families))
    for category, families in {
        "single_object": (("diamond",), ("ring",)),
        "two_object": (("circle", "triangle"), ("cross", "square"), ("diamond", "ring")),
        "counting": (("cross",),),
        "colors": (("diamond",),),
        "position": (("circle", "square"), ("cross", "ring"), ("diamond", "triangle")),
        "color_attr": (("circle", "ring"), ("cross", "diamond"), ("square", "triangle")),
    }.items()
}
"""Whole families of combinations, by their shapes: whoever never trains on one has never trained on its neighbours.

Were it single combinations, what remains of a pair of shapes would speak against what is held out of it: a model that
often drew the circle left of the square, and never right of it, has learnt the wrong thing about the two.
"""
UNTAUGHT_NUMBER = {"circle": 2, "square": 3, "triangle": 4, "cross": 2, "diamond": 3, "ring": 4}
UNTAUGHT_COLOR = dict(zip(SHAPES, COLORS, strict=True))
"""What the world's own models are not taught before, of counting and colors: they must have met each shape's plural."""


def single_object(shape: str) -> Example:
    """Is it there?"""
    a = with_article(shape)
    return Example(f"a photo of {a}", f"do you see {a} ?", shape, "single_object", (Item(shape),))


def two_object(shape: str, other: str) -> Example:
    """Are both there?"""
    both = f"{with_article(shape)} and {with_article(other)}"
    objects = (Item(shape), Item(other))
    return Example(f"a photo of {both}", f"do you see {both} ?", f"{shape} and {other}", "two_object", objects)


def counting(shape: str, number: int) -> Example:
    """How many, from one to four?"""
    answer = counted(shape, number)
    question = f"how many {plural(shape)} do you see ?"
    exclude = (Item(shape, number + 1),)
    return Example(f"a photo of {answer}", question, answer, "counting", (Item(shape, number),), exclude)


def colors(shape: str, color: str) -> Example:
    """In which color?"""
    prompt = f"a photo of {with_article(f'{color} {shape}')}"
    objects = (Item(shape, 1, color),)
    return Example(prompt, f"what color is the {shape} ?", color, "colors", objects, _no_second(shape))


def position(shape: str, relation: str, other: str) -> Example:
    """Where does it stand, seen from the other?"""
    prompt = f"a photo of {with_article(shape)} {relation} {with_article(other)}"
    # The target comes first: a relation can only point to an earlier item.
    objects = (Item(other), Item(shape, relation=(relation, 0)))
    question, answer = f"where is the {shape} from the {other} ?", relation.split(maxsplit=1)[0]
    return Example(prompt, question, answer, "position", objects, _no_second(shape, other))


def color_attr(shape: str, color: str, other: str, other_color: str) -> Example:
    """Which color has which?"""
    prompt = f"a photo of {with_article(f'{color} {shape}')} and {with_article(f'{other_color} {other}')}"
    question = f"what color are the {shape} and the {other} ?"
    objects = (Item(shape, 1, color), Item(other, 1, other_color))
    return Example(prompt, question, f"{color} and {other_color}", "color_attr", objects, _no_second(shape, other))


def _no_second(*shapes: str) -> tuple[Item, ...]:
    """What a question about "the circle" takes for granted. GenEval forgives extra things; here, only other shapes."""
    return tuple(Item(shape, 2) for shape in shapes)


@cache
def all_examples(category: str, split: Split | None = None) -> tuple[Example, ...]:
    """Every example of a category in a fixed order: those of one split, or all.

    Args:
        category: One of the world's.
        split: "train": what models improve themselves on; "held_out": the rest, to measure with; "taught": what the
            world's own models learnt before.
    """
    if split is not None:
        return tuple(e for e in all_examples(category) if _belongs(e, split))
    pairs = list(permutations(SHAPES, 2))
    made = {
        "single_object": lambda: [single_object(s) for s in SHAPES],
        "two_object": lambda: [two_object(a, b) for a, b in pairs],
        "counting": lambda: [counting(s, n + 1) for s in SHAPES for n in range(len(NUMBERS))],
        "colors": lambda: [colors(s, c) for s in SHAPES for c in COLORS],
        "position": lambda: [position(a, r, b) for a, b in pairs for r in RELATIONS],
        "color_attr": lambda: [color_attr(a, c, b, d) for a, b in pairs for c, d in permutations(COLORS, 2)],
    }
    return tuple(made[category]())


def draw_example(rng: Random, split: Split | None = None, category: str | None = None) -> Example:
    """A random example: the category first, each as often as the others, then one of its combinations."""
    return rng.choice(all_examples(category or rng.choice(CATEGORIES), split))


def held_out(example: Example) -> bool:
    """Whether training never draws this example's combination of shapes, colors, number and relation."""
    return frozenset(item.name for item in example.objects) in HELD_OUT[example.category]


def _belongs(example: Example, split: Split) -> bool:
    if split != "taught":
        return held_out(example) == (split == "held_out")
    first = example.objects[0]
    if example.category == "counting":
        return first.count != UNTAUGHT_NUMBER[first.name]
    if example.category == "colors":
        return first.color != UNTAUGHT_COLOR[first.name]
    return not held_out(example)


def true_answer(example: Example, scene: Scene) -> str:
    """The right answer to the example's question about any scene.

    Where the question has no single answer it is "many", and the picture is wrong (see `exclude`).
    """
    groups = [[thing for thing in scene if thing.shape == item.name] for item in example.objects]
    if example.category in ("single_object", "two_object"):
        return " and ".join(g[0].shape for g in groups if g) or "none"
    if example.category == "counting":
        return counted(example.objects[0].name, len(groups[0]))
    if example.category == "position":
        return _direction(groups[1], groups[0])
    return " and ".join(_color(group) for group in groups)


def _color(things: list[Thing]) -> str:
    seen = {thing.color for thing in things}
    return "none" if not seen else seen.pop() if len(seen) == 1 else "many"


def _direction(things: list[Thing], targets: list[Thing]) -> str:
    if not things or not targets:
        return "none"
    if len(things) > 1 or len(targets) > 1:
        return "many"
    held = relation_of(things[0].cell, targets[0].cell)
    return " ".join(name.split()[0] for name in RELATIONS if name in held)


def words() -> list[str]:
    """Every word of prompts, questions and answers, sorted: the vocabulary of the world's models."""
    texts = [":", "?", "user", "assistant", "zero", "none", "many", *DIRECTIONS, *map(plural, SHAPES)]
    for category in CATEGORIES:
        for example in all_examples(category):
            texts += [example.prompt, example.question, example.answer]
    return sorted({word for text in texts for word in text.split()})
