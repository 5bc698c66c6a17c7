"""GenEval-style prompts, none of which is a prompt of the benchmark."""

import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import chain, islice, zip_longest
from random import Random
from typing import ClassVar

from typing_extensions import override

from unirl.errors import UserError, suggest
from unirl.prompts.base import Prompts
from unirl.prompts.question_sets import with_questions
from unirl.prompts.vocabulary import (
    COLORS,
    COUNTS,
    EXTRA,
    OBJECTS,
    OPPOSITE,
    RELATIONS,
    UNCOLORED,
    UNCOUNTED,
    color_attr,
    colors,
    counting,
    position,
    single_object,
    two_object,
)
from unirl.types import Example

# Categories with few combinations hold out a larger share of them.
_HELD_OUT_SHARE = {"single_object": 0.15, "counting": 0.05, "colors": 0.05}
_DEFAULT_SHARE = 0.02

_MAX_REJECTIONS = 2000
"""Rejected candidates in a row after which the held-out prompts of a category count as exhausted."""


class GenEval(Prompts):
    """Prompts of GenEval's six categories, over its 80 COCO classes and 80 other objects.

    Every prompt names at least one object that is not a COCO class, and GenEval's own prompts name COCO classes only.
    So no prompt here is a prompt of the benchmark, neither in its words nor in what the image must show. COCO classes
    are used as follows:

    - two_object, position, color_attr: together with one of the other objects;
    - counting, colors: with one of the other objects added, as in "a photo of three cups and a lamp";
    - single_object: not at all, as the benchmark asks for each of them.

    An image may still contain what a prompt of the benchmark asks for: the last example contains three cups.

    Held out are 15 % of single objects, 5 % of counts and colors, and 2 % of the other combinations, chosen by a hash
    of the combination. The order of objects, an added object, and the direction in which a relation is stated make no
    difference to it.

    Args:
        weights: Relative frequency of each category; categories that are not named do not occur. By default all are
            equally frequent.
        question_sets: Ask several questions about an image: whether each object is there, how many, which color, where,
            and about an object that should not be there. Only the reward `questions` reads all of them. By default one.

    Raises:
        UserError: a category is unknown, a weight is negative or not finite, or all weights are 0.

    Source: UniRL (arXiv 2505.23380) for the form of questions and answers; GenEval (arXiv 2310.11513) for the rest.

    Example:
        >>> example = GenEval({"counting": 1.0}).sample(seed=0, index=0)
        >>> example == GenEval({"counting": 1.0}).sample(seed=0, index=0)
        True
    """

    categories: ClassVar[tuple[str, ...]] = (
        "single_object",
        "two_object",
        "counting",
        "colors",
        "position",
        "color_attr",
    )

    def __init__(self, weights: dict[str, float] | None = None, question_sets: bool = False) -> None:
        self.weights = _check_weights(dict.fromkeys(self.categories, 1.0) if weights is None else weights)
        self.question_sets = question_sets

    @override
    def sample(self, seed: int, index: int) -> Example:
        # `Random` hashes strings by SHA-512: the same numbers in every process and on every machine.
        rng = Random(f"geneval/{seed}/{index}")
        category = rng.choices(self.categories, [self.weights.get(name, 0.0) for name in self.categories])[0]
        return self._train_example(category, rng)

    @override
    def category_shares(self) -> dict[str, float]:
        total = sum(self.weights.values())
        return {name: self.weights[name] / total for name in self.categories if self.weights.get(name, 0.0) > 0}

    @override
    def sample_category(self, seed: int, index: int, category: str) -> Example:
        if category not in self.category_shares():
            categories = suggest(category, self.category_shares())
            raise UserError(f"geneval: there are no training prompts of category {category!r}; {categories}")
        return self._train_example(category, Random(f"geneval/{seed}/{index}/{category}"))

    @override
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        names = [name for name in self.categories if self.weights.get(name, 0.0) > 0]
        generators = [_held_out_examples(name, Random(f"geneval/held_out/{seed}/{name}")) for name in names]
        interleaved = chain.from_iterable(zip_longest(*generators))
        examples = list(islice((example for example in interleaved if example is not None), max(count, 0)))
        if not self.question_sets:
            return examples
        return [with_questions(example, Random(f"geneval/questions/{example.prompt}")) for example in examples]

    def _train_example(self, category: str, rng: Random) -> Example:
        while is_held_out(example := _BUILDERS[category](rng)):
            pass
        return with_questions(example, rng) if self.question_sets else example


def combination(example: Example) -> str:
    """A canonical name of what an example asks for; equal for examples that ask for the same in other words.

    Args:
        example: An example of `GenEval`.

    Example:
        >>> from unirl.prompts.vocabulary import position
        >>> combination(position("cup", "left of", "lamp")) == combination(position("lamp", "right of", "cup"))
        True
    """
    first, *others = example.objects
    parts: tuple[str, ...] = tuple(sorted(f"{item.color} {item.name}" for item in example.objects))
    if example.category in ("counting", "colors"):
        parts = (first.name, str(first.count), str(first.color))
    elif others and others[0].relation:
        relation, _ = others[0].relation
        parts = min((others[0].name, relation, first.name), (first.name, OPPOSITE[relation], others[0].name))
    return "/".join((example.category, *parts))


def is_held_out(example: Example) -> bool:
    """Whether an example is for `GenEval.held_out` and never returned by `GenEval.sample`.

    Args:
        example: An example of `GenEval`.
    """
    share = _HELD_OUT_SHARE.get(example.category, _DEFAULT_SHARE)
    digest = sha256(f"held out/{combination(example)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _pair(rng: Random, excluded: frozenset[str] = frozenset()) -> list[str]:
    extra = rng.choice(EXTRA)
    pair = [extra, rng.choice([name for name in OBJECTS if name not in excluded and name != extra])]
    rng.shuffle(pair)
    return pair


def _subject(rng: Random, excluded: frozenset[str]) -> tuple[str, str | None]:
    name = rng.choice([name for name in OBJECTS if name not in excluded])
    return name, None if name in EXTRA else rng.choice(EXTRA)


def _counting(rng: Random) -> Example:
    name, companion = _subject(rng, UNCOUNTED)
    return counting(name, rng.choice(COUNTS), companion)


def _colors(rng: Random) -> Example:
    name, companion = _subject(rng, UNCOLORED)
    return colors(name, rng.choice(COLORS), companion)


def _position(rng: Random) -> Example:
    name, target = _pair(rng)
    return position(name, rng.choice(RELATIONS), target)


def _color_attr(rng: Random) -> Example:
    first, second = _pair(rng, UNCOLORED)
    first_color, second_color = rng.sample(COLORS, 2)
    return color_attr(first, first_color, second, second_color)


_BUILDERS: dict[str, Callable[[Random], Example]] = {
    "single_object": lambda rng: single_object(rng.choice(EXTRA)),
    "two_object": lambda rng: two_object(*_pair(rng)),
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}


def _held_out_examples(category: str, rng: Random) -> Iterator[Example]:
    """Held-out examples of a category in random order, each once."""
    seen: set[str] = set()
    rejections = 0
    while rejections < _MAX_REJECTIONS:
        example = _BUILDERS[category](rng)
        rejections += 1
        if is_held_out(example) and example.prompt not in seen:
            seen.add(example.prompt)
            rejections = 0
            yield example


def _check_weights(weights: dict[str, float]) -> dict[str, float]:
    for category, weight in weights.items():
        if category not in GenEval.categories:
            raise UserError(f"geneval: there is no category {category!r}; {suggest(str(category), GenEval.categories)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(
                f"geneval: the weight of category {category!r} is {weight}; it must be finite and 0 or more"
            )
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise UserError(f"geneval: the weights of the categories sum to {total}; at least one must be above 0")
    return dict(weights)
