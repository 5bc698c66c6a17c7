import subprocess
import sys
from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unirl.errors import UserError
from unirl.types import Example
from unirl_shapes.examples import all_examples, held_out, position, words
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import CATEGORIES, COLORS, NUMBERS, OPPOSITE, RELATIONS, SHAPES


def combination(example: Example) -> str:
    """What an example is about, the same for every way to say it."""
    first, last = example.objects[0], example.objects[-1]
    if last.relation is not None:
        relation, a, b = last.relation[0], last.name, first.name
        if relation in ("right of", "below"):
            relation, a, b = OPPOSITE[relation], b, a
        return f"{example.category}: {a} {relation} {b}"
    return f"{example.category}: " + ", ".join(sorted(f"{i.count} {i.color} {i.name}" for i in example.objects))


HELD_OUT = {combination(e) for category in CATEGORIES for e in all_examples(category, "held_out")}


VOCABULARY = set(words())


def leaves(value):
    if hasattr(value, "__dataclass_fields__"):
        return [leaf for f in fields(value) for leaf in leaves(getattr(value, f.name))]
    return [leaf for v in value for leaf in leaves(v)] if isinstance(value, tuple) else [value]


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_training_never_draws_a_held_out_combination(seed, index):
    example = ShapesPrompts().sample(seed, index)
    assert combination(example) not in HELD_OUT
    assert not held_out(example)


def test_training_and_held_out_share_no_combination_and_no_prompt():
    for category in CATEGORIES:
        train, rest = all_examples(category, "train"), all_examples(category, "held_out")
        assert len(train) + len(rest) == len(all_examples(category))
        assert not {combination(e) for e in train} & {combination(e) for e in rest}
        assert not {e.prompt for e in train} & {e.prompt for e in rest}


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_decent_share_is_held_out_in_words_that_were_taught(category):
    rest = all_examples(category, "held_out")
    assert 0.1 <= len(rest) / len(all_examples(category)) <= 0.35
    taught = {word for name in CATEGORIES for e in all_examples(name, "taught") for word in e.prompt.split()}
    assert taught >= {word for e in rest for word in e.prompt.split()}
    if category == "position":
        assert {e.objects[1].relation[0] for e in rest} == set(RELATIONS)


def test_single_objects_held_out_are_named():
    assert {e.objects[0].name for e in all_examples("single_object", "held_out")} == {"diamond", "ring"}


def test_of_counting_and_colors_all_of_one_shape_is_held_out():
    numbers = [(e.objects[0].name, e.objects[0].count) for e in all_examples("counting", "held_out")]
    assert numbers == [("cross", number + 1) for number in range(len(NUMBERS))]
    found = [(e.objects[0].name, e.objects[0].color) for e in all_examples("colors", "held_out")]
    assert found == [("diamond", color) for color in COLORS]


def test_of_counting_and_colors_one_of_each_shape_was_never_taught():
    for category in ("counting", "colors"):
        taught = all_examples(category, "taught")
        left = [e for e in all_examples(category) if e not in taught]
        assert sorted(e.objects[0].name for e in left) == sorted(SHAPES)
        if category == "colors":
            assert {e.objects[0].color for e in left} == set(COLORS)


@pytest.mark.parametrize("category", ["single_object", "two_object", "position", "color_attr"])
def test_what_is_held_out_of_all_else_was_never_taught(category):
    assert all_examples(category, "taught") == all_examples(category, "train")


@pytest.mark.parametrize("category", ["two_object", "position", "color_attr"])
def test_of_two_shapes_it_is_whole_pairs_and_every_shape_is_in_one(category):
    def pairs(split):
        return {frozenset(item.name for item in e.objects) for e in all_examples(category, split)}

    assert not pairs("held_out") & pairs("train")
    assert sorted(shape for pair in pairs("held_out") for shape in pair) == sorted(SHAPES)


def test_a_combination_is_the_same_however_it_is_said():
    assert combination(position("ring", "below", "cross")) == combination(position("cross", "above", "ring"))
    assert combination(position("ring", "below", "cross")) != combination(position("cross", "below", "ring"))
    counts = {category: Counter(map(combination, all_examples(category))) for category in CATEGORIES}
    ways = {category: set(count.values()) for category, count in counts.items()}
    once, twice = {1}, {2}
    assert ways == dict(zip(CATEGORIES, (once, twice, once, once, twice, twice), strict=True))


def test_an_example_holds_no_picture():
    prompts = ShapesPrompts()
    for example in [*(prompts.sample(0, i) for i in range(50)), *prompts.held_out(12)]:
        assert all(isinstance(leaf, str | int | None) for leaf in leaves(example))
        assert not any(isinstance(leaf, Tensor) for leaf in leaves(example))


def test_draws_can_be_made_again_and_differ():
    a, b = ShapesPrompts(), ShapesPrompts()
    draws = [a.sample(3, i) for i in range(100)]
    assert draws == [b.sample(3, i) for i in reversed(range(100))][::-1]
    assert draws != [a.sample(4, i) for i in range(100)]
    assert len({example.prompt for example in draws}) > 50


def test_draws_are_the_same_in_another_process():
    code = "from unirl_shapes.prompts import ShapesPrompts as P; print([P().sample(1, i).prompt for i in range(20)])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([ShapesPrompts().sample(1, i).prompt for i in range(20)])


def test_categories_come_evenly_or_as_weighted():
    even = Counter(ShapesPrompts().sample(0, i).category for i in range(3000))
    assert set(even) == set(CATEGORIES)
    assert all(400 < n < 600 for n in even.values())
    weighted = Counter(ShapesPrompts({"counting": 3, "colors": 1}).sample(0, i).category for i in range(1000))
    assert set(weighted) == {"counting", "colors"}
    assert 700 < weighted["counting"] < 800


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"countin": 1}, "no category 'countin'; did you mean counting"),
        ({"counting": -1}, "from 0 on, got -1"),
        ({"counting": float("nan")}, "finite"),
        ({"counting": 0}, "at least one"),
        ({}, "at least one"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        ShapesPrompts(weights)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 100, 600])
def test_held_out_is_balanced_and_complete(count):
    examples = ShapesPrompts().held_out(count, seed=1)
    assert len(examples) == count
    assert all(held_out(example) for example in examples)
    by_category = Counter(example.category for example in examples)
    assert max(by_category.values(), default=0) - min((by_category[c] for c in CATEGORIES), default=0) <= 1
    assert examples == ShapesPrompts().held_out(count, seed=1)


def test_held_out_repeats_only_what_ran_out():
    examples = ShapesPrompts().held_out(600)
    for category in CATEGORIES:
        distinct = {example.prompt for example in examples if example.category == category}
        assert len(distinct) == min(100, len(all_examples(category, "held_out")))
    assert ShapesPrompts().held_out(60, 0) != ShapesPrompts().held_out(60, 1)


def test_texts_are_plain_words_with_right_grammar():
    for category in CATEGORIES:
        for example in all_examples(category):
            for text in (example.prompt, example.question, example.answer):
                assert text == text.lower()
                assert set(text.split()) <= VOCABULARY
                assert " a orange" not in text
                assert not any(f" an {shape}" in text for shape in SHAPES)
    assert words() == sorted(set(words()))
    assert {"user", "assistant", ":", "?", "zero", "many", "none", "crosses"} <= set(words())
