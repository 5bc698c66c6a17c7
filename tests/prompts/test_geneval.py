import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl.errors import UserError
from unirl.prompts import vocabulary as v
from unirl.prompts.geneval import GenEval, combination, is_held_out
from unirl.types import Example, Item

BENCHMARK = Path(__file__).resolve().parents[2] / "../shared/geneval"
needs_benchmark = pytest.mark.skipif(
    not (BENCHMARK / "evaluation_metadata.jsonl").exists(), reason=f"GenEval's own files are not in {BENCHMARK}"
)
CATEGORIES = GenEval.categories
Scene = frozenset[tuple[object, ...]]


def letters(text: str) -> str:
    """A text without case, spaces and punctuation: equal where two prompts differ in nothing else."""
    return re.sub("[^a-z0-9]", "", text.lower())


def benchmark() -> list[dict]:
    lines = (BENCHMARK / "evaluation_metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def scene(things: list[tuple[str, int, str | None, tuple[str, int] | None]]) -> Scene:
    """What a picture must show, whatever the words and the order: relations told from both sides."""
    facts: set[tuple[object, ...]] = {(name, count, color) for name, count, color, _ in things}
    for name, _, _, relation in things:
        if relation:
            target = things[relation[1]][0]
            facts |= {(name, relation[0], target), (target, v.OPPOSITE[relation[0]], name)}
    return frozenset(facts)


def asked(example: Example) -> Scene:
    return scene([(item.name, item.count, item.color, item.relation) for item in example.objects])


def wanted(row: dict) -> Scene:
    return scene([(item["class"], item["count"], item.get("color"), item.get("position")) for item in row["include"]])


def every_example() -> Iterator[Example]:
    """Every prompt there can be, but for color_attr: there, every pair of things in one pair of colors."""
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


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(every_example())


def test_tables() -> None:
    assert (len(v.COCO), len(v.EXTRA), len(set(v.OBJECTS)), len(set(v.COLORS))) == (80, 80, 160, 10)
    assert set(v.OBJECTS) >= v.PAIRED | v.UNCOLORED | v.UNCOUNTED


def test_every_extra_thing_has_a_word_that_no_coco_name_has() -> None:
    known = {word for name in v.COCO for word in (name + " " + v.many(name)).split()} | set(v.COLORS)
    for name in v.EXTRA:
        assert set(name.split()) - known, name


@pytest.mark.parametrize(
    ("example", "prompt", "question", "answer"),
    [
        (v.single_object("egg"), "a photo of an egg", "What is the main object in the picture?", "egg"),
        (
            v.two_object("apple", "scissors"),
            "a photo of an apple and a pair of scissors",
            "What two objects are in the picture?",
            "There is an apple and a pair of scissors",
        ),
        (
            v.counting("person", 3, "lamp"),
            "a photo of three people and a lamp",
            "How many people are in the picture?",
            "three people",
        ),
        (
            v.counting("sunglasses", 2),
            "a photo of two pairs of sunglasses",
            "How many pairs of sunglasses are in the picture?",
            "two pairs of sunglasses",
        ),
        (v.colors("unicycle", "orange"), "a photo of an orange unicycle", "What color is the unicycle?", "orange"),
        (
            v.colors("skis", "red", "egg"),
            "a photo of a pair of red skis and an egg",
            "What color are the skis?",
            "red",
        ),
        (
            v.position("unicycle", "left of", "scissors"),
            "a photo of a unicycle left of a pair of scissors",
            "Where is the unicycle in relation to the scissors? Answer in one sentence.",
            "The unicycle is left of the scissors",
        ),
        (
            v.color_attr("skis", "red", "bench", "orange"),
            "a photo of a pair of red skis and an orange bench",
            "What color are the skis and what color is the bench?",
            "The skis are red and the bench is orange",
        ),
    ],
)
def test_sentences(example: Example, prompt: str, question: str, answer: str) -> None:
    assert (example.prompt, example.question, example.answer) == (prompt, question, answer)


def test_structure_is_that_of_genevals_metadata() -> None:
    counted = v.counting("cup", 3, "lamp")
    assert counted.objects == (Item("cup", 3), Item("lamp"))
    assert counted.exclude == (Item("cup", 4),)
    assert v.position("lamp", "above", "cup").objects == (Item("cup"), Item("lamp", relation=("above", 0)))
    assert v.color_attr("cup", "red", "lamp", "blue").objects == (Item("cup", color="red"), Item("lamp", color="blue"))


@needs_benchmark
def test_position_order_is_the_benchmarks() -> None:
    for row in benchmark():
        if row["tag"] == "position":
            target, placed = row["include"]
            ours = v.position(placed["class"], placed["position"][0], target["class"])
            assert [item.name for item in ours.objects] == [target["class"], placed["class"]]
            assert row["prompt"].replace("an ", "a ") == (
                f"a photo of a {placed['class']} {placed['position'][0]} a {target['class']}"
            )


@needs_benchmark
def test_coco_names_are_spelt_as_the_benchmark_spells_them() -> None:
    assert list(v.COCO) == (BENCHMARK / "object_names.txt").read_text(encoding="utf-8").split("\n")[:80]


@needs_benchmark
def test_no_benchmark_prompt_holds_the_name_of_an_extra_thing() -> None:
    # With `test_every_prompt_names_an_extra_thing` this is the whole proof, color_attr included.
    prompts = [letters(row["prompt"]) for row in benchmark()]
    assert len(prompts) == 553
    named = [(name, prompt) for name in v.EXTRA for prompt in prompts if letters(name) in prompt]
    plurals = [(name, prompt) for name in v.EXTRA for prompt in prompts if letters(v.many(name)) in prompt]
    assert named == plurals == []


@needs_benchmark
def test_no_possible_prompt_and_no_possible_scene_is_the_benchmarks(examples: list[Example]) -> None:
    rows = benchmark()
    prompts, scenes = {letters(row["prompt"]) for row in rows}, {wanted(row) for row in rows}
    assert not prompts & {letters(example.prompt) for example in examples}
    assert not scenes & {asked(example) for example in examples}


@given(st.integers(0, 2**62), st.integers(0, 2**31))
def test_every_prompt_names_an_extra_thing(seed: int, index: int) -> None:
    example = GenEval().sample(seed, index)
    extra = [item for item in example.objects if item.name in v.EXTRA]
    assert any(item.name in example.prompt or v.many(item.name) in example.prompt for item in extra)
    assert not is_held_out(example)
    assert example.category in CATEGORIES


def test_prompts_differ_where_scenes_do(examples: list[Example]) -> None:
    by_prompt: dict[str, Scene] = {}
    for example in examples[::5]:
        assert by_prompt.setdefault(example.prompt, asked(example)) == asked(example)


def test_coco_classes_are_trained_on_in_five_categories() -> None:
    seen: dict[str, set[str]] = {category: set() for category in CATEGORIES}
    for index in range(4000):
        example = GenEval().sample(0, index)
        seen[example.category] |= {item.name for item in example.objects} & set(v.COCO)
    assert not seen.pop("single_object")
    assert all(len(names) > 70 for names in seen.values())


def test_unfit_things_are_not_counted_or_colored() -> None:
    for index in range(3000):
        example = GenEval({"counting": 1, "colors": 1, "color_attr": 1}).sample(1, index)
        assert not {item.name for item in example.objects if item.color} & v.UNCOLORED
        assert not {item.name for item in example.exclude} & v.UNCOUNTED
        if example.category == "color_attr":
            assert len({item.color for item in example.objects}) == len({item.name for item in example.objects}) == 2


def test_draws_are_the_same_on_every_machine() -> None:
    # Resumed runs rely on this: whoever changes these changes everybody's runs.
    assert [GenEval().sample(3, index).prompt for index in range(4)] == [
        "a photo of a wolf and a spatula",
        "a photo of a brown broccoli and an orange mushroom",
        "a photo of a pretzel left of a pencil",
        "a photo of two handbags and a pair of sunglasses",
    ]


def test_seeds_and_indices_give_different_draws() -> None:
    assert len({GenEval().sample(seed, index).prompt for seed in range(30) for index in range(30)}) > 700


def test_weights_choose_the_categories() -> None:
    drawn = Counter(GenEval({"counting": 3, "colors": 1, "position": 0}).sample(0, i).category for i in range(2000))
    assert set(drawn) == {"counting", "colors"}
    assert 2.5 < drawn["counting"] / drawn["colors"] < 3.6
    even = Counter(GenEval().sample(0, index).category for index in range(6000))
    assert all(880 < even[category] < 1120 for category in CATEGORIES)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"color": 1.0}, "no category 'color'; did you mean: colors"),
        ({"counting": -1.0}, "weight of category 'counting' is -1.0"),
        ({"counting": float("nan")}, "finite"),
        ({"counting": float("inf")}, "finite"),
        ({"counting": 0.0}, "sum to 0.0"),
        ({}, "sum to 0"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GenEval(weights)


def test_held_out_is_balanced_distinct_and_never_drawn() -> None:
    held = GenEval().held_out(48)
    assert Counter(example.category for example in held) == dict.fromkeys(CATEGORIES, 8)
    assert len({example.prompt for example in held}) == 48
    assert all(is_held_out(example) for example in held)
    drawn = {combination(GenEval().sample(0, index)) for index in range(5000)}
    assert not drawn & {combination(example) for example in held}


def test_held_out_depends_on_the_seed_and_follows_the_weights() -> None:
    assert GenEval().held_out(12, seed=1) == GenEval().held_out(12, seed=1) != GenEval().held_out(12, seed=2)
    assert {example.category for example in GenEval({"colors": 1}).held_out(10)} == {"colors"}
    assert GenEval().held_out(0) == []
    few = GenEval({"single_object": 1}).held_out(1000)
    assert [is_held_out(v.single_object(name)) for name in v.EXTRA].count(True) == len(few) >= 8


def test_a_small_share_is_held_out(examples: list[Example]) -> None:
    some = [example for example in examples if example.category == "single_object"] + examples[::29]
    kept = Counter(example.category for example in some if is_held_out(example))
    every = Counter(example.category for example in some)
    assert all(0.01 < kept[category] / every[category] < 0.2 for category in CATEGORIES)


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
