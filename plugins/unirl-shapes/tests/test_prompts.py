from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unirl import Example, UserError
from unirl_shapes.examples import all_examples, is_held_out, position, words
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import CATEGORIES, COLORS, NUMBERS, OPPOSITE, RELATIONS, SHAPES


def combination(example: Example) -> str:
    """What an example asks for, regardless of its words."""
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
def test_held_out_combinations_are_never_sampled(seed, index):
    example = ShapesPrompts().sample(seed, index)
    assert combination(example) not in HELD_OUT
    assert not is_held_out(example)


def test_training_and_held_out_share_no_combination_and_no_prompt():
    for category in CATEGORIES:
        train, held_out = all_examples(category, "train"), all_examples(category, "held_out")
        assert len(train) + len(held_out) == len(all_examples(category))
        assert not {combination(e) for e in train} & {combination(e) for e in held_out}
        assert not {e.prompt for e in train} & {e.prompt for e in held_out}


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_held_out_share_and_its_words(category):
    held_out = all_examples(category, "held_out")
    assert 0.1 <= len(held_out) / len(all_examples(category)) <= 0.35
    pretrain = {word for name in CATEGORIES for e in all_examples(name, "pretrain") for word in e.prompt.split()}
    assert pretrain >= {word for e in held_out for word in e.prompt.split()}
    if category == "position":
        assert {e.objects[1].relation[0] for e in held_out} == set(RELATIONS)


def test_held_out_single_objects():
    assert {e.objects[0].name for e in all_examples("single_object", "held_out")} == {"diamond", "ring"}


def test_all_counts_and_colors_of_one_shape_are_held_out():
    numbers = [(e.objects[0].name, e.objects[0].count) for e in all_examples("counting", "held_out")]
    assert numbers == [("cross", number + 1) for number in range(len(NUMBERS))]
    colors = [(e.objects[0].name, e.objects[0].color) for e in all_examples("colors", "held_out")]
    assert colors == [("diamond", color) for color in COLORS]


def test_one_count_and_color_of_each_shape_is_left_out_of_pretraining():
    for category in ("counting", "colors"):
        pretrain = all_examples(category, "pretrain")
        left_out = [e for e in all_examples(category) if e not in pretrain]
        assert sorted(e.objects[0].name for e in left_out) == sorted(SHAPES)
        if category == "colors":
            assert {e.objects[0].color for e in left_out} == set(COLORS)


def test_other_held_out_examples_are_left_out_of_pretraining():
    for category in ("single_object", "two_object", "position", "color_attr"):
        assert all_examples(category, "pretrain") == all_examples(category, "train")


def test_held_out_pairs_are_complete_and_have_every_shape_once():
    def pairs(category, split):
        return {frozenset(item.name for item in e.objects) for e in all_examples(category, split)}

    for category in ("two_object", "position", "color_attr"):
        assert not pairs(category, "held_out") & pairs(category, "train")
        assert sorted(shape for pair in pairs(category, "held_out") for shape in pair) == sorted(SHAPES)


def test_combinations_do_not_depend_on_words():
    assert combination(position("ring", "below", "cross")) == combination(position("cross", "above", "ring"))
    assert combination(position("ring", "below", "cross")) != combination(position("cross", "below", "ring"))
    counts = {category: Counter(map(combination, all_examples(category))) for category in CATEGORIES}
    repetitions = {category: set(count.values()) for category, count in counts.items()}
    once, twice = {1}, {2}
    assert repetitions == dict(zip(CATEGORIES, (once, twice, once, once, twice, twice), strict=True))


def test_examples_have_no_images():
    prompts = ShapesPrompts()
    for example in [*(prompts.sample(0, i) for i in range(50)), *prompts.held_out(12)]:
        assert all(isinstance(leaf, str | int | None) for leaf in leaves(example))
        assert not any(isinstance(leaf, Tensor) for leaf in leaves(example))


def test_samples_depend_on_seed_and_index_only():
    a, b = ShapesPrompts(), ShapesPrompts()
    samples = [a.sample(3, i) for i in range(100)]
    assert samples == [b.sample(3, i) for i in reversed(range(100))][::-1]
    assert samples != [a.sample(4, i) for i in range(100)]
    assert len({example.prompt for example in samples}) > 50


def test_frequencies_of_categories():
    uniform = Counter(ShapesPrompts().sample(0, i).category for i in range(3000))
    assert set(uniform) == set(CATEGORIES)
    assert all(400 < n < 600 for n in uniform.values())
    weighted = Counter(ShapesPrompts({"counting": 3, "colors": 1}).sample(0, i).category for i in range(1000))
    assert set(weighted) == {"counting", "colors"}
    assert 700 < weighted["counting"] < 800


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"countin": 1}, "no category 'countin'; categories are single_object"),
        ({"counting": -1}, "is -1; it must be finite and 0 or more"),
        ({"counting": float("nan")}, "finite"),
        ({"counting": 0}, "at least one"),
        ({}, "at least one"),
    ],
)
def test_invalid_weights_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        ShapesPrompts(weights)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 100, 600])
def test_held_out_is_balanced_and_complete(count):
    examples = ShapesPrompts().held_out(count, seed=1)
    assert len(examples) == count
    assert all(is_held_out(example) for example in examples)
    by_category = Counter(example.category for example in examples)
    assert max(by_category.values(), default=0) - min((by_category[c] for c in CATEGORIES), default=0) <= 1
    assert examples == ShapesPrompts().held_out(count, seed=1)


def test_held_out_repeats_only_where_examples_are_too_few():
    examples = ShapesPrompts().held_out(600)
    for category in CATEGORIES:
        distinct = {example.prompt for example in examples if example.category == category}
        assert len(distinct) == min(100, len(all_examples(category, "held_out")))
    assert ShapesPrompts().held_out(60, 0) != ShapesPrompts().held_out(60, 1)


def test_texts_are_words_of_the_vocabulary_with_the_right_articles():
    for category in CATEGORIES:
        for example in all_examples(category):
            for text in (example.prompt, example.question, example.answer):
                assert text == text.lower()
                assert set(text.split()) <= VOCABULARY
                assert " a orange" not in text
                assert not any(f" an {shape}" in text for shape in SHAPES)
    assert words()[:-5] == sorted(set(words()[:-5]))  # an index never changes
    assert words()[-5:] == ["no", "more", "than", "there", "yes"]
    assert {"user", "assistant", ":", "?", "zero", "many", "none", "crosses"} <= set(words())
