"""Examples of the shapes world, the held-out ones among them, and the true answer about any scene.

All texts are lower-case words, which the tokenizers of the world's models split at spaces.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from random import Random
from typing import Literal

from unirl import Example, Item, UserError
from unirl_shapes.complex_examples import WORDS, complex_kinds, families, is_plain
from unirl_shapes.scenes import Scene
from unirl_shapes.truth import answer
from unirl_shapes.vocabulary import (
    ALL_CATEGORIES,
    CATEGORIES,
    COLORS,
    COMPLEX,
    DIRECTIONS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    counted,
    plural,
    with_article,
)

Split = Literal["train", "held_out", "pretrain"]
"""Examples of self-improvement, of evaluation, and of pre-training."""
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
"""Held-out combinations of shapes of each category, in all numbers, colors and relations.

Single combinations would bias the model against the held-out ones: a model that is often trained to generate a circle
left of a square, and never right of it, learns the wrong thing about the two.

The category "complex" has no families of its own. It combines these: an example is held out if one of its parts is.
"""
NUMBERS_LEFT_OUT = {"circle": 2, "square": 3, "triangle": 4, "cross": 2, "diamond": 3, "ring": 4}
COLORS_LEFT_OUT = dict(zip(SHAPES, COLORS, strict=True))
"""One number and one color of each shape, which pre-training leaves out. All other numbers and colors are used, so that
models know all plurals."""


def single_object(shape: str) -> Example:
    """An example of a shape."""
    a = with_article(shape)
    return Example(f"a photo of {a}", f"do you see {a} ?", shape, "single_object", (Item(shape),))


def two_object(shape: str, other: str) -> Example:
    """An example of two shapes."""
    both = f"{with_article(shape)} and {with_article(other)}"
    objects = (Item(shape), Item(other))
    return Example(f"a photo of {both}", f"do you see {both} ?", f"{shape} and {other}", "two_object", objects)


def counting(shape: str, number: int) -> Example:
    """An example of one to four objects of a shape."""
    answer = counted(shape, number)
    question = f"how many {plural(shape)} do you see ?"
    exclude = (Item(shape, number + 1),)
    return Example(f"a photo of {answer}", question, answer, "counting", (Item(shape, number),), exclude)


def colors(shape: str, color: str) -> Example:
    """An example of a shape in a color."""
    prompt = f"a photo of {with_article(f'{color} {shape}')}"
    objects = (Item(shape, 1, color),)
    return Example(prompt, f"what color is the {shape} ?", color, "colors", objects, _at_most_one(shape))


def position(shape: str, relation: str, other: str) -> Example:
    """An example of a shape in a relation to another one."""
    prompt = f"a photo of {with_article(shape)} {relation} {with_article(other)}"
    # The target comes first, as relations refer to earlier items.
    objects = (Item(other), Item(shape, relation=(relation, 0)))
    question, answer = f"where is the {shape} from the {other} ?", relation.split(maxsplit=1)[0]
    return Example(prompt, question, answer, "position", objects, _at_most_one(shape, other))


def color_attr(shape: str, color: str, other: str, other_color: str) -> Example:
    """An example of two shapes in different colors."""
    prompt = f"a photo of {with_article(f'{color} {shape}')} and {with_article(f'{other_color} {other}')}"
    question = f"what color are the {shape} and the {other} ?"
    objects = (Item(shape, 1, color), Item(other, 1, other_color))
    return Example(prompt, question, f"{color} and {other_color}", "color_attr", objects, _at_most_one(shape, other))


def _at_most_one(*shapes: str) -> tuple[Item, ...]:
    """Exclude a second object of a shape: questions about "the circle" require a single one."""
    return tuple(Item(shape, 2) for shape in shapes)


@cache
def all_examples(category: str, split: Split | None = None) -> tuple[Example, ...]:
    """All examples of a category in a fixed order, or those of a split.

    Args:
        category: One of `ALL_CATEGORIES`.
        split: "train" is for self-improvement, "held_out" the rest, for evaluation; "pretrain" is for pre-training of
            the world's models. None takes all.
    """
    if split is not None:
        return tuple(e for e in all_examples(category) if _is_in(e, split))
    if category == COMPLEX:
        return tuple(example for kind in complex_kinds() for example in kind)
    pairs = list(permutations(SHAPES, 2))
    builders = {
        "single_object": lambda: [single_object(s) for s in SHAPES],
        "two_object": lambda: [two_object(a, b) for a, b in pairs],
        "counting": lambda: [counting(s, n + 1) for s in SHAPES for n in range(len(NUMBERS))],
        "colors": lambda: [colors(s, c) for s in SHAPES for c in COLORS],
        "position": lambda: [position(a, r, b) for a, b in pairs for r in RELATIONS],
        "color_attr": lambda: [color_attr(a, c, b, d) for a, b in pairs for c, d in permutations(COLORS, 2)],
    }
    return tuple(builders[category]())


@cache
def kinds(category: str, split: Split | None = None) -> tuple[tuple[Example, ...], ...]:
    """The examples of a split by kind: those of "complex" have several kinds, of very different sizes.

    Args:
        category: One of `ALL_CATEGORIES`.
        split: As for `all_examples`.
    """
    if category != COMPLEX:
        return (all_examples(category, split),)
    by_kind = (tuple(e for e in kind if split is None or _is_in(e, split)) for kind in complex_kinds())
    return tuple(kind for kind in by_kind if kind)


def sample_example(rng: Random, split: Split | None = None, category: str | None = None) -> Example:
    """A random example: first the category, then one of its examples, both uniformly.

    Args:
        rng: The only source of randomness.
        split: As for `all_examples`.
        category: One of `ALL_CATEGORIES`, of which "complex" samples a kind first. None samples one of `CATEGORIES`.
    """
    by_kind = kinds(category or rng.choice(CATEGORIES), split)
    return rng.choice(by_kind[0] if len(by_kind) == 1 else rng.choice(by_kind))


def held_out_examples(categories: Sequence[str], count: int, seed: int = 0) -> list[Example]:
    """Exactly `count` held-out examples, the categories in turn; their examples repeat where there are too few.

    Args:
        categories: Some of `ALL_CATEGORIES`. The kinds of "complex" are taken in turn, too.
        count: Number of examples.
        seed: Seed of their order.
    """
    pools = {}
    for category in categories:
        pools[category] = [list(kind) for kind in kinds(category, "held_out")]
        rng = Random(f"held out {seed} {category}")
        for kind in pools[category]:
            rng.shuffle(kind)
    examples = []
    for i in range(count):
        turn, index = divmod(i, len(categories))
        pool = pools[categories[index]]
        turn, index = divmod(turn, len(pool))
        examples.append(pool[index][turn % len(pool[index])])
    return examples


def train_examples(categories: Sequence[str], count: int, seed: int = 0) -> list[Example]:
    """Random training examples, the categories in turn: on them, settings may be chosen.

    Args:
        categories: Some of `ALL_CATEGORIES`.
        count: Number of examples.
        seed: Seed of the examples.
    """
    rng = Random(f"training {seed}")
    return [sample_example(rng, "train", categories[i % len(categories)]) for i in range(count)]


def check_categories(names: Sequence[str]) -> tuple[str, ...]:
    """The categories, if all are those of the world.

    Args:
        names: At least one, each once.

    Raises:
        UserError: there is none, one is unknown, or one is named twice.
    """
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise UserError(f"shapes: categories are {names!r}; give a list of one or more, each once")
    for name in names:
        if name not in ALL_CATEGORIES:
            raise UserError(f"shapes: there is no category {name!r}; categories are {', '.join(ALL_CATEGORIES)}")
    return tuple(names)


def is_held_out(example: Example) -> bool:
    """Whether an example is held out of training.

    Args:
        example: An example of the shapes world.
    """
    if example.category == COMPLEX:
        return any(shapes in HELD_OUT[category] for category, shapes in families(example))
    return frozenset(item.name for item in example.objects) in HELD_OUT[example.category]


def _is_in(example: Example, split: Split) -> bool:
    if split != "pretrain":
        return is_held_out(example) == (split == "held_out")
    first = example.objects[0]
    if example.category == "counting":
        return first.count != NUMBERS_LEFT_OUT[first.name]
    if example.category == "colors":
        return first.color != COLORS_LEFT_OUT[first.name]
    return not is_held_out(example) and (example.category != COMPLEX or is_plain(example))


def true_answer(example: Example, scene: Scene) -> str:
    """The true answer to the question of an example about a scene.

    It is "many" where the question has no single answer. The image is wrong then, see `Example.exclude`.

    Args:
        example: An example of the shapes world.
        scene: Any scene.
    """
    return answer(example.question, scene)


def words() -> list[str]:
    """All words of prompts, questions and answers: the vocabulary of the world's models.

    Those of the category "complex" follow the others, which are sorted: an index never changes.
    """
    texts = [":", "?", "user", "assistant", "zero", "none", "many", *DIRECTIONS, *map(plural, SHAPES)]
    for category in CATEGORIES:
        for example in all_examples(category):
            texts += [example.prompt, example.question, example.answer]
    return [*sorted({word for text in texts for word in text.split()}), *WORDS]
