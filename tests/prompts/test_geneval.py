import re
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl import UserError
from unirl.prompts import NUMBERS, GenEval
from unirl.prompts import vocabulary as v
from unirl.prompts.geneval import combination, is_held_out
from unirl.types import Example, Item

CATEGORIES = GenEval.categories
Scene = frozenset[tuple[object, ...]]


def letters(text: str) -> str:
    """A text without case, articles, spaces and punctuation."""
    return re.sub("[^a-z0-9]", "", re.sub(r"\ban\b", "a", text.lower()))


def scene(example: Example) -> Scene:
    """What an image must show, regardless of words and order, with relations stated in both directions."""
    facts: set[tuple[object, ...]] = {(item.name, item.count, item.color) for item in example.objects}
    for item in example.objects:
        if item.relation:
            name, index = item.relation
            target = example.objects[index].name
            facts |= {(item.name, name, target), (target, v.OPPOSITE[name], item.name)}
    return frozenset(facts)


def our_examples() -> Iterator[Example]:
    """All possible examples; of color_attr, all pairs of objects in one pair of colors."""
    yield from map(v.single_object, v.EXTRA)
    for first, second in permutations(v.OBJECTS, 2):
        if first not in v.EXTRA and second not in v.EXTRA:
            continue
        yield v.two_object(first, second)
        yield from (v.position(first, relation, second) for relation in v.RELATIONS)
        if not {first, second} & v.UNCOLORED:
            yield v.color_attr(first, "red", second, "blue")
    for name in v.OBJECTS:
        for companion in (None,) if name in v.EXTRA else v.EXTRA:
            yield from (v.counting(name, count, companion) for count in v.COUNTS)
            yield from (v.colors(name, color, companion) for color in v.COLORS)


def benchmark_examples() -> Iterator[Example]:
    """All prompts of GenEval's templates over its classes, of which the benchmark has 553; color_attr as above.

    Plurals are spelled in both ways, as the benchmark has "buses" and "benchs". Its prompts have no pairs.
    """
    for name in v.COCO:
        yield Example(f"a photo of a {name}", "", "", "", (Item(name),))
        for count in v.COUNTS:
            for plural in (f"{name}s", v.many(name)):
                yield Example(f"a photo of {NUMBERS[count]} {plural}", "", "", "", (Item(name, count),))
        for color in v.COLORS:
            yield Example(f"a photo of a {color} {name}", "", "", "", (Item(name, color=color),))
    for first, second in permutations(v.COCO, 2):
        both = (Item(first), Item(second))
        yield Example(f"a photo of a {first} and a {second}", "", "", "", both)
        colored = (Item(first, color="red"), Item(second, color="blue"))
        yield Example(f"a photo of a red {first} and a blue {second}", "", "", "", colored)
        for relation in v.RELATIONS:
            placed = (Item(second), Item(first, relation=(relation, 0)))
            yield Example(f"a photo of a {first} {relation} a {second}", "", "", "", placed)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(our_examples())


def test_sizes_of_the_vocabulary() -> None:
    assert (len(v.COCO), len(v.EXTRA), len(set(v.OBJECTS)), len(set(v.COLORS))) == (80, 80, 160, 10)
    assert set(v.OBJECTS) >= v.PAIRED | v.UNCOLORED | v.UNCOUNTED


def test_coco_classes_are_spelled_as_in_the_benchmark() -> None:
    digest = sha256("\n".join(v.COCO).encode()).hexdigest()  # of the first 80 lines of its `object_names.txt`
    assert digest == "8aad18a0fdff92ac691f5387a560abfee0c4027fd731fb8bbf83d5df11233cf5"


def test_every_extra_object_has_a_word_that_no_benchmark_prompt_has() -> None:
    # Together with `test_every_prompt_names_an_extra_object` this proves the same of color_attr in all colors.
    words = {word for example in benchmark_examples() for word in example.prompt.split()} | set(v.COLORS)
    words |= {word for name in v.COCO for word in v.many(name).split()}
    unknown = {name: set(name.split()) - words for name in v.EXTRA}
    assert not [name for name, own in unknown.items() if not own]
    plurals = {name: set(v.many(name).split()) - words for name in v.EXTRA}
    assert not [name for name, own in plurals.items() if not own]


def test_no_prompt_and_no_scene_is_one_of_the_benchmark(examples: list[Example]) -> None:
    benchmark = list(benchmark_examples())
    assert not {letters(e.prompt) for e in benchmark} & {letters(e.prompt) for e in examples}
    assert not {scene(e) for e in benchmark} & {scene(e) for e in examples}


def test_sentences() -> None:
    expected = {
        v.single_object("egg"): ("a photo of an egg", "What is the main object in the picture?", "egg"),
        v.two_object("apple", "scissors"): (
            "a photo of an apple and a pair of scissors",
            "What two objects are in the picture?",
            "There is an apple and a pair of scissors",
        ),
        v.counting("person", 3, "lamp"): (
            "a photo of three people and a lamp",
            "How many people are in the picture?",
            "three people",
        ),
        v.counting("sunglasses", 2): (
            "a photo of two pairs of sunglasses",
            "How many pairs of sunglasses are in the picture?",
            "two pairs of sunglasses",
        ),
        v.colors("unicycle", "orange"): ("a photo of an orange unicycle", "What color is the unicycle?", "orange"),
        v.colors("skis", "red", "egg"): (
            "a photo of a pair of red skis and an egg",
            "What color are the skis?",
            "red",
        ),
        v.position("unicycle", "left of", "scissors"): (
            "a photo of a unicycle left of a pair of scissors",
            "Where is the unicycle in relation to the scissors? Answer in one sentence.",
            "The unicycle is left of the scissors",
        ),
        v.color_attr("skis", "red", "bench", "orange"): (
            "a photo of a pair of red skis and an orange bench",
            "What color are the skis and what color is the bench?",
            "The skis are red and the bench is orange",
        ),
    }
    assert {example: (example.prompt, example.question, example.answer) for example in expected} == expected


def test_structure_is_that_of_genevals_metadata() -> None:
    three_cups = v.counting("cup", 3, "lamp")
    assert three_cups.objects == (Item("cup", 3), Item("lamp"))
    assert three_cups.exclude == (Item("cup", 4),)
    assert v.position("lamp", "above", "cup").objects == (Item("cup"), Item("lamp", relation=("above", 0)))
    assert v.color_attr("cup", "red", "lamp", "blue").objects == (Item("cup", color="red"), Item("lamp", color="blue"))


@given(st.integers(0, 2**62), st.integers(0, 2**31))
def test_every_prompt_names_an_extra_object(seed: int, index: int) -> None:
    example = GenEval().sample(seed, index)
    extra = [item for item in example.objects if item.name in v.EXTRA]
    assert any(item.name in example.prompt or v.many(item.name) in example.prompt for item in extra)
    assert not is_held_out(example)
    assert example.category in CATEGORIES


def test_prompts_differ_where_scenes_do(examples: list[Example]) -> None:
    by_prompt: dict[str, Scene] = {}
    for example in examples[::5]:
        assert by_prompt.setdefault(example.prompt, scene(example)) == scene(example)


def test_coco_classes_are_trained_on_in_five_categories() -> None:
    seen: dict[str, set[str]] = {category: set() for category in CATEGORIES}
    for index in range(4000):
        example = GenEval().sample(0, index)
        seen[example.category] |= {item.name for item in example.objects} & set(v.COCO)
    assert not seen.pop("single_object")
    assert all(len(names) > 70 for names in seen.values())


def test_objects_without_color_or_plural_are_not_colored_or_counted() -> None:
    for index in range(3000):
        example = GenEval({"counting": 1, "colors": 1, "color_attr": 1}).sample(1, index)
        assert not {item.name for item in example.objects if item.color} & v.UNCOLORED
        assert not {item.name for item in example.exclude} & v.UNCOUNTED
        if example.category == "color_attr":
            assert len({item.color for item in example.objects}) == len({item.name for item in example.objects}) == 2


def test_samples_are_the_same_on_every_machine() -> None:
    # Resumed runs rely on this.
    assert [GenEval().sample(3, index).prompt for index in range(4)] == [
        "a photo of a wolf and a spatula",
        "a photo of a brown broccoli and an orange mushroom",
        "a photo of a pretzel left of a pencil",
        "a photo of two handbags and a pair of sunglasses",
    ]


def test_seeds_and_indices_give_different_samples() -> None:
    assert len({GenEval().sample(seed, index).prompt for seed in range(30) for index in range(30)}) > 700


def test_weights_choose_the_categories() -> None:
    frequency = Counter(GenEval({"counting": 3, "colors": 1, "position": 0}).sample(0, i).category for i in range(2000))
    assert set(frequency) == {"counting", "colors"}
    assert 2.5 < frequency["counting"] / frequency["colors"] < 3.6
    uniform = Counter(GenEval().sample(0, index).category for index in range(6000))
    assert all(880 < uniform[category] < 1120 for category in CATEGORIES)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"color": 1.0}, "no category 'color'; nearest: colors"),
        ({"counting": -1.0}, "weight of category 'counting' is -1.0"),
        ({"counting": float("nan")}, "finite"),
        ({"counting": float("inf")}, "finite"),
        ({"counting": 0.0}, "sum to 0.0"),
        ({}, "sum to 0"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GenEval(weights)


def test_held_out_is_balanced_and_distinct_and_never_sampled() -> None:
    held = GenEval().held_out(48)
    assert Counter(example.category for example in held) == dict.fromkeys(CATEGORIES, 8)
    assert len({example.prompt for example in held}) == 48
    assert all(is_held_out(example) for example in held)
    sampled = {combination(GenEval().sample(0, index)) for index in range(5000)}
    assert not sampled & {combination(example) for example in held}


def test_held_out_depends_on_the_seed_and_follows_the_weights() -> None:
    assert GenEval().held_out(12, seed=1) == GenEval().held_out(12, seed=1) != GenEval().held_out(12, seed=2)
    assert {example.category for example in GenEval({"colors": 1}).held_out(10)} == {"colors"}
    assert GenEval().held_out(0) == []
    few = GenEval({"single_object": 1}).held_out(1000)
    assert [is_held_out(v.single_object(name)) for name in v.EXTRA].count(True) == len(few) >= 8


def test_a_small_share_is_held_out(examples: list[Example]) -> None:
    subset = [example for example in examples if example.category == "single_object"] + examples[::29]
    held_out = Counter(example.category for example in subset if is_held_out(example))
    total = Counter(example.category for example in subset)
    assert all(0.01 < held_out[category] / total[category] < 0.2 for category in CATEGORIES)


@given(*[st.sampled_from(v.EXTRA)] * 2, st.sampled_from(v.RELATIONS), *[st.sampled_from(v.COLORS)] * 2)
def test_the_same_scene_in_other_words_is_the_same_combination(
    first: str, second: str, relation: str, color: str, other: str
) -> None:
    assert combination(v.two_object(first, second)) == combination(v.two_object(second, first))
    opposite = v.position(second, v.OPPOSITE[relation], first)
    assert first == second or combination(v.position(first, relation, second)) == combination(opposite)
    swapped = v.color_attr(second, other, first, color)
    assert combination(v.color_attr(first, color, second, other)) == combination(swapped)
    assert combination(v.counting("cup", 3, first)) == combination(v.counting("cup", 3, second))


def test_names_and_relations_make_different_combinations() -> None:
    keys = [combination(v.position("cup", *ends)) for ends in product(v.RELATIONS, ("egg", "lamp"))]
    assert len(set(keys)) == len(keys)
