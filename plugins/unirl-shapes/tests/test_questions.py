"""Question sets of the shapes world: true about correct scenes, false about others, and about no held-out family."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from unirl import Question
from unirl_shapes.examples import all_examples, is_held_out, true_answer, words
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.questions import with_questions
from unirl_shapes.scenes import Scene, near_miss, scene_for
from unirl_shapes.vocabulary import CATEGORIES

ASKED_BY = {example.question: example for category in CATEGORIES for example in all_examples(category)}
SETS, ONE = ShapesPrompts(question_sets=True), ShapesPrompts()


def is_right(question: Question, scene: Scene) -> bool:
    answer = true_answer(ASKED_BY[question.text], scene)
    return answer == question.answer or (question.text.startswith("where") and question.answer in answer.split())


def test_prompts_and_main_questions_are_those_of_the_default():
    for i in range(100):
        assert replace(SETS.sample(3, i), questions=()) == ONE.sample(3, i)
    assert [replace(example, questions=()) for example in SETS.held_out(30)] == ONE.held_out(30)
    assert SETS.held_out(30) == SETS.held_out(30)


def test_all_answers_are_right_about_a_correct_scene_and_some_are_wrong_about_others():
    rng, wrong = Random(0), Counter()
    for i in range(600):
        example = SETS.sample(0, i)
        assert all(is_right(question, scene_for(example, rng)) for question in example.questions), example
        scene = near_miss(example, rng)
        wrong[example.category] += not all(is_right(question, scene) for question in example.questions)
    # Some near misses have a second object of a shape and color, or an ambiguous relation: rare.
    assert min(wrong.values()) > 85, wrong


@pytest.mark.parametrize("category", CATEGORIES)
def test_training_asks_nothing_of_a_held_out_family(category):
    answers, vocabulary = Counter(), set(words())
    for example in all_examples(category, "train"):
        asked = with_questions(example, Random(example.prompt))
        assert not any(is_held_out(ASKED_BY[question.text]) for question in asked.questions)
        for question in asked.questions:
            assert set(" ".join((question.text, *question.choices)).split()) <= vocabulary
            assert question.answer in question.choices
            answers[question.answer == "none"] += 1
        assert asked.questions[-1].answer == "none"
    assert answers[True] > 0.15 * answers.total()


def test_swapped_colors_are_among_the_choices():
    example = next(e for e in all_examples("color_attr", "train") if e.answer == "red and blue")
    main, *others = with_questions(example, Random(0)).questions
    assert {"red and blue", "blue and red", "red and red", "blue and blue"} < set(main.choices)
    assert [question.answer for question in others if question.text.startswith("what color")] == ["red", "blue"]
