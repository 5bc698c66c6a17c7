"""Prompts in the manner of GenEval, never GenEval's own."""

import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import chain, islice, zip_longest
from random import Random
from typing import ClassVar

from unirl.errors import UserError, nearest
from unirl.prompts.base import Prompts
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

# Where there are few combinations, more of them are kept back: two in a hundred of 80 things would leave no exam.
_HELD_OUT_SHARE = {"single_object": 0.15, "counting": 0.05, "colors": 0.05}
_DEFAULT_SHARE = 0.02

_PATIENCE = 2000
"""Vain tries in a row after which a category's held-out prompts count as exhausted."""


class GenEval(Prompts):
    """Six categories of prompts, questions and answers, over GenEval's 80 classes and 80 things it does not know.

    Every prompt names at least one thing that GenEval has no class for, and GenEval's prompts name none of them. So no
    prompt here can equal one of the benchmark's, in words or in what it asks to see, and no list of the benchmark's
    prompts is needed to be sure. What follows for its own 80 classes:

    - two_object, position, color_attr: they stand beside one of the other things;
    - counting, colors: they are counted or colored in the company of one: "a photo of three cups and a lamp";
    - single_object: never, since the benchmark asks for every one of them.

    What does remain: a scene here may contain what a benchmark prompt asks for, as that one contains three cups.

    Some combinations are kept back for `held_out`: 15 % of single objects, 5 % of counts and of colors, 2 % of the
    others, by a hash of what is asked. The order of mention, the company of a counted or colored thing, and the side
    from which a relation is told make no difference to it.

    Args:
        weights: How often each category comes, in proportion; those not named never come. All alike by default.

    Raises:
        UserError: A category is unknown, a weight is negative or not finite, or all weights are 0.

    Source: UniRL (arXiv 2505.23380) for the shapes of question and answer; GenEval (arXiv 2310.11513) for the rest.

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

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        self.weights = _checked(dict.fromkeys(self.categories, 1.0) if weights is None else weights)

    def sample(self, seed: int, index: int) -> Example:
        # A string seeds `Random` through SHA-512: the same in every process and on every machine.
        rng = Random(f"geneval/{seed}/{index}")
        category = rng.choices(self.categories, [self.weights.get(name, 0.0) for name in self.categories])[0]
        while is_held_out(example := _BUILDERS[category](rng)):
            pass
        return example

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        wanted = [name for name in self.categories if self.weights.get(name, 0.0) > 0]
        turns = zip_longest(*(_kept_back(name, Random(f"geneval/held_out/{seed}/{name}")) for name in wanted))
        return list(islice((example for example in chain.from_iterable(turns) if example is not None), max(count, 0)))


def combination(example: Example) -> str:
    """What an example asks for, written in one way: the same for all examples that amount to the same.

    Args:
        example: One of `GenEval`'s.

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
    """Whether `GenEval.draw` keeps an example back for `GenEval.held_out`."""
    share = _HELD_OUT_SHARE.get(example.category, _DEFAULT_SHARE)
    digest = sha256(f"held out/{combination(example)}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _pair(rng: Random, barred: frozenset[str] = frozenset()) -> list[str]:
    extra = rng.choice(EXTRA)
    pair = [extra, rng.choice([name for name in OBJECTS if name not in barred and name != extra])]
    rng.shuffle(pair)
    return pair


def _subject(rng: Random, barred: frozenset[str]) -> tuple[str, str | None]:
    name = rng.choice([name for name in OBJECTS if name not in barred])
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


def _kept_back(category: str, rng: Random) -> Iterator[Example]:
    seen: set[str] = set()
    vain = 0
    while vain < _PATIENCE:
        example = _BUILDERS[category](rng)
        vain += 1
        if is_held_out(example) and example.prompt not in seen:
            seen.add(example.prompt)
            vain = 0
            yield example


def _checked(weights: dict[str, float]) -> dict[str, float]:
    for category, weight in weights.items():
        if category not in GenEval.categories:
            close = nearest(str(category), GenEval.categories)
            raise UserError(f"geneval prompts have no category {category!r}; did you mean: {close}?")
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"the weight of category {category!r} is {weight}; it must be 0 or more and finite")
    total = sum(weights.values())
    if not 0 < total < math.inf:
        raise UserError(f"the weights of the geneval categories sum to {total}; give at least one that is positive")
    return dict(weights)
