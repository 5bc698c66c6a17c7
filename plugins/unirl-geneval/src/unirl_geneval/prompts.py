"""Prompts for a run that GenEval's detector measures: its validation asks for COCO's classes only."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, zip_longest
from typing import Any

import numpy as np
from typing_extensions import override

from unirl import Example, Item
from unirl.prompts import NUMBERS, GenEval, article, plural
from unirl_geneval.metadata import Metadata, benchmark_metadata, example, sampled_entries

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
STREAM = 20251
"""Of the random numbers for held-out prompts; the benchmark has another seed."""


class GenEvalCoco(GenEval):
    """The prompts `geneval`, with held-out prompts that the judge `geneval` can judge.

    Training prompts are those of `geneval`: each names an object that is no COCO class, and none is of the benchmark.
    Held-out prompts name COCO classes only. They are made by GenEval's rule with other random numbers, without what the
    benchmark asks for in these or in other words, so it stays unseen. There is none of single objects, since the
    benchmark asks for every one of them.

    Args:
        weights: Relative frequency of each category, as of `geneval`.

    Raises:
        UserError: a category is unknown, a weight is negative or not finite, or all weights are 0.

    Source: GenEval (arXiv 2310.11513) for the rule.

    Example:
        >>> [example.category for example in GenEvalCoco().held_out(2)]
        ['two_object', 'counting']
    """

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        super().__init__(weights)

    @override
    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        names = [name for name in self.category_shares() if name != "single_object"]
        interleaved = chain.from_iterable(zip_longest(*(_held_out(name, seed) for name in names)))
        return list(islice((one for one in interleaved if one is not None), max(count, 0)))


def _held_out(category: str, seed: int) -> Iterator[Example]:
    """Different held-out examples of a category, until there are hardly any others."""
    seen = {combination(entry) for entry in benchmark_metadata()}
    fresh, round_index = True, 0
    while fresh:
        fresh = False
        for entry in sampled_entries(np.random.default_rng([STREAM, seed, round_index])):
            if entry["tag"] == category and combination(entry) not in seen:
                seen.add(combination(entry))
                fresh = True
                yield with_question(example(entry))
        round_index += 1


def combination(entry: Metadata) -> tuple[Any, ...]:
    """What an entry asks for; equal for entries that ask for the same in other words.

    Args:
        entry: Of GenEval's metadata.

    Example:
        >>> cup, dog = {"class": "cup", "count": 1}, {"class": "dog", "count": 1}
        >>> a = {"tag": "position", "include": [cup, dog | {"position": ["above", 0]}]}
        >>> b = {"tag": "position", "include": [dog, cup | {"position": ["below", 0]}]}
        >>> combination(a) == combination(b)
        True
    """
    items = [(one["class"], one["count"], one.get("color", "")) for one in entry["include"]]
    relation = ""
    if entry["tag"] == "position":
        relation = entry["include"][1]["position"][0]
        if items != sorted(items):
            items, relation = items[::-1], OPPOSITE[relation]
    return entry["tag"], *sorted(items), relation


def with_question(one: Example) -> Example:
    """An example of GenEval's metadata with a question about the image in the form of `geneval`.

    Args:
        one: Without a question. It stays without one where it is none of GenEval's six tasks.

    Example:
        >>> with_question(Example("a red cup", category="colors", objects=(Item("cup", color="red"),))).answer
        'red'
    """
    asked = _question(one.category, [*one.objects])
    return one if asked is None else replace(one, question=asked[0], answer=asked[1])


def _question(task: str, objects: list[Item]) -> tuple[str, str] | None:
    """Question and answer about the objects of a task."""
    match objects:
        case [item]:
            return _about_one(task, item)
        case [first, second]:
            return _about_two(task, first, second)
    return None


def _about_one(task: str, item: Item) -> tuple[str, str] | None:
    if task == "single_object":
        return "What is the main object in the picture?", item.name
    if task == "counting" and item.count < len(NUMBERS):
        many = plural(item.name)
        return f"How many {many} are in the picture?", f"{NUMBERS[item.count]} {many}"
    if task == "colors" and item.color:
        return f"What color is the {item.name}?", item.color
    return None


def _about_two(task: str, first: Item, second: Item) -> tuple[str, str] | None:
    a, b = first.name, second.name
    if task == "position" and second.relation:  # the object that is placed comes last
        question = f"Where is the {b} in relation to the {a}? Answer in one sentence."
        return question, f"The {b} is {second.relation[0]} the {a}"
    if task == "color_attr" and first.color and second.color:
        question = f"What color is the {a} and what color is the {b}?"
        return question, f"The {a} is {first.color} and the {b} is {second.color}"
    if task == "two_object":
        return "What two objects are in the picture?", f"There is {article(a)} and {article(b)}"
    return None
