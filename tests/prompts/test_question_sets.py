"""GenEval's question sets: the same prompts and main questions, hard choices, and answers that are not "yes"."""

from collections import Counter
from dataclasses import replace

import pytest

from unirl import Example, Question
from unirl.prompts import GenEval

SETS, ONE = GenEval(question_sets=True), GenEval()
PLACES = ("left of", "right of", "above", "below")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [SETS.sample(0, i) for i in range(300)]


def test_prompts_and_main_questions_are_those_of_the_default(examples: list[Example]) -> None:
    assert [replace(example, questions=()) for example in examples] == [ONE.sample(0, i) for i in range(300)]
    assert [replace(example, questions=()) for example in SETS.held_out(30)] == ONE.held_out(30)
    assert all(len(example.questions) == 1 for example in ONE.held_out(30))


def test_each_set_asks_for_each_object_and_for_one_that_is_not_there(examples: list[Example]) -> None:
    for example in examples:
        closed = [question for question in example.questions if question.choices == ("yes", "no")]
        assert [question.answer for question in closed] == ["yes"] * len(example.objects) + ["no"]
        for question, item in zip(closed, example.objects, strict=False):
            assert question.text == f"Is there {_one(question)} in the picture? Answer yes or no."
            assert _one(question).endswith(item.name)
        assert not any(_one(closed[-1]).endswith(item.name) for item in example.objects)


def test_details_require_their_objects_and_have_hard_choices(examples: list[Example]) -> None:
    seen: Counter[str] = Counter()
    for example in examples:
        present = {i + 1: item.name for i, item in enumerate(example.objects)}
        for question in example.questions:
            if not question.requires:
                continue
            seen[example.category] += 1
            if example.category != "counting":  # whose question has the plural
                assert all(present[i] in question.text for i in question.requires)
            if example.category in ("colors", "color_attr"):
                assert {item.color for item in example.objects if item.color} <= set(question.choices)
                assert len(question.choices) == 4
            elif example.category == "position":
                assert question.choices == PLACES
                assert question.answer == next(item.relation for item in example.objects if item.relation)[0]
            else:
                assert len(question.choices) == 5
    assert set(seen) == {"colors", "counting", "color_attr", "position"}


def _one(question: Question) -> str:
    return question.text.removeprefix("Is there ").removesuffix(" in the picture? Answer yes or no.")
