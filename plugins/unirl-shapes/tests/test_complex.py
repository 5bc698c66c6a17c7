"""The category "complex": what it asks for, what it holds out, its scenes, questions and their truth."""

import re
from collections import Counter
from importlib.resources import files
from itertools import combinations
from random import Random

import pytest
from transformers import PreTrainedTokenizerFast

from unirl import Item, UserError
from unirl_shapes.cli import main
from unirl_shapes.complex_examples import comparison, negation, three_objects
from unirl_shapes.detector import detect_scene
from unirl_shapes.examples import HELD_OUT, all_examples, is_held_out, kinds, sample_example, words
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.pretrain import data
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.questions import with_questions
from unirl_shapes.render import render, render_batch
from unirl_shapes.scenes import SceneObject, near_miss, random_scene, scene_for
from unirl_shapes.truth import answer
from unirl_shapes.vocabulary import ALL_CATEGORIES, CATEGORIES, COLORS, COMPLEX, NUMBERS, SHAPES, plural

NAMES = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
WEIGHTS = dict.fromkeys(ALL_CATEGORIES, 1.0)
SETS = ShapesPrompts({COMPLEX: 1.0}, question_sets=True)
PLACED = three_objects((Item("circle", 1, "red"), Item("square", 1, "blue"), Item("ring", 2)), "left of")
COMPARED = comparison("circle", "square")


def example_sets(split, count, seed=0):
    rng = Random(f"{split} {seed}")
    return [with_questions(sample_example(rng, split, COMPLEX), rng) for _ in range(count)]


def is_right(question, scene):
    true = answer(question.text, scene)
    return true == question.answer or (question.text.startswith("where") and question.answer in true.split())


def test_examples_in_words():
    rows = [(e.prompt, e.question, e.answer) for e in (PLACED, negation("square", "circle", "red"))]
    assert rows == [
        (
            "a photo of a red circle left of a blue square and two rings",
            "do you see a circle and a square and a ring ?",
            "circle and square and ring",
        ),
        ("a photo of a red square and no circle", "do you see a square and no circle ?", "yes"),
    ]
    things = (Item("circle", 1, "orange"), Item("square", 2, "blue"), Item("ring"))
    assert three_objects(things).prompt == "a photo of an orange circle and two blue squares and a ring"
    assert comparison("cross", "ring").question == "are there more crosses than rings ?"


def test_all_texts_are_words_of_the_vocabulary():
    vocabulary, prompts = set(words()), [e.prompt for e in all_examples(COMPLEX)]
    assert len(set(prompts)) == len(prompts)
    assert max(len(prompt.split()) for prompt in prompts) <= 20
    for example in (*all_examples(COMPLEX), *example_sets(None, 300)):
        texts = [example.prompt, *(text for q in example.questions for text in (q.text, q.answer, *q.choices))]
        assert set(" ".join(texts).split()) <= vocabulary
        assert " a orange" not in example.prompt


def test_the_shipped_models_know_all_words_at_their_places():
    shipped = PreTrainedTokenizerFast.from_pretrained(files("unirl_shapes") / "checkpoints" / "showo" / "tokenizer")
    assert shipped.get_vocab() == data.text_tokenizer().get_vocab()
    assert set(words()[-5:]) == {"no", "more", "than", "there", "yes"}  # the others keep the places that they had


def combined(prompt):
    """The families that a prompt combines, read from its words."""
    tokens = prompt.removeprefix("a photo of ").split()
    shapes = [NAMES[token] for token in tokens if token in NAMES]
    phrases = [phrase.split() for phrase in re.split(r" and | left of | right of | above | below ", prompt)]
    colored = [NAMES[phrase[-1]] for phrase in phrases if set(phrase) & set(COLORS)]
    found = {("two_object", frozenset(pair)) for pair in combinations(shapes, 2)}
    found |= {("color_attr", frozenset(pair)) for pair in combinations(colored, 2)}
    found |= {("colors", frozenset(colored))} if len(colored) == 1 else set()
    found |= {("counting", frozenset({NAMES[token]})) for token in tokens if token in NAMES and token not in SHAPES}
    if set(tokens) & {"left", "right", "above", "below"}:
        found.add(("position", frozenset(shapes[:2])))
    if "no" in tokens:
        found.add(("single_object", frozenset(shapes[:1])))
    return found


def test_training_never_has_a_part_that_another_category_holds_out():
    held_out = {(category, shapes) for category in CATEGORIES for shapes in HELD_OUT[category]}
    for example in all_examples(COMPLEX):
        assert is_held_out(example) == bool(combined(example.prompt) & held_out), example.prompt
    for split in ("train", "pretrain"):
        assert not any(is_held_out(example) for example in all_examples(COMPLEX, split))
    assert all(min(map(len, kinds(COMPLEX, split))) > 10 for split in ("train", "held_out", "pretrain"))


def test_pretraining_knows_the_words_but_not_the_combinations():
    examples = all_examples(COMPLEX, "pretrain")
    assert set(examples) <= set(all_examples(COMPLEX, "train"))
    tokens = {token for example in examples for token in example.prompt.split()}
    assert tokens.isdisjoint((*COLORS, *NUMBERS, "left", "right", "above", "below"))
    assert {"no", "more", "than"} <= tokens
    assert len(kinds(COMPLEX, "pretrain")) == 3


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_scenes_are_correct_and_near_misses_are_wrong_in_pixels(split):
    rng, examples = Random(split), example_sets(split, 150)
    scenes = [scene_for(example, rng, rng.randrange(5)) for example in examples]
    misses = [near_miss(example, rng, rng.randrange(4)) for example in examples]
    assert ShapesJudge().verdicts(examples, render_batch(scenes)).all()
    assert not ShapesJudge().verdicts(examples, render_batch(misses)).any()


def test_near_misses_have_all_kinds_of_errors():
    rng, text = Random(0), {}
    for name, example in (("placed", PLACED), ("no", negation("square", "circle", "red")), ("more", COMPARED)):
        questions = with_questions(example, Random(1)).questions
        asked = {q.text for q in questions} | {"what color is the circle ?", "how many rings do you see ?"}
        scenes = [near_miss(example, rng) for _ in range(300)]
        text[name] = {f"{question} {answer(question, scene)}" for question in asked for scene in scenes}
    assert text["placed"] >= {
        "do you see a circle and a square and a ring ? circle and square",
        "where is the circle from the square ? right",
        "where is the circle from the square ? many",
        "what color is the circle ? blue",
        "how many rings do you see ? one ring",
        "how many rings do you see ? three rings",
    }
    assert text["no"] >= {
        "do you see a square and a circle ? square and circle",
        "do you see a square and a circle ? none",
        "what color is the square ? blue",
        "how many squares do you see ? two squares",
    }
    assert text["more"] >= {"are there more squares than circles ? yes", "are there more squares than circles ? no"}
    equal = [s for s in (near_miss(COMPARED, rng) for _ in range(100)) if len({o.shape for o in s}) == 2]
    counts = [Counter(placed.shape for placed in scene) for scene in equal]
    assert {count["circle"] - count["square"] for count in counts} >= {0, -1, -2}


def test_a_comparison_needs_both_shapes():
    kinds_of_scene = (("circle", "circle", "square"), ("circle", "circle"), ("circle", "square"), ("square",) * 2)
    scenes = [tuple(SceneObject(shape, "red", i) for i, shape in enumerate(shapes)) for shapes in kinds_of_scene]
    verdicts = ShapesJudge().verdicts([COMPARED] * 4, render_batch(scenes))
    assert verdicts.tolist() == [True, False, False, False]


@pytest.mark.parametrize("split", ["train", "held_out", "pretrain"])
def test_question_sets_are_true_of_correct_images_and_ask_nothing_held_out(split):
    rng, held_out = Random(split), {e.question for c in CATEGORIES for e in all_examples(c) if is_held_out(e)}
    answers, wrong = Counter(), 0
    for example in example_sets(split, 400):
        scene, miss = scene_for(example, rng), near_miss(example, rng)
        assert all(is_right(question, scene) for question in example.questions), example
        wrong += not all(is_right(question, miss) for question in example.questions)
        assert all(question.choices for question in example.questions)
        assert split == "held_out" or held_out.isdisjoint(question.text for question in example.questions)
        answers.update(question.answer for question in example.questions)
        assert len(example.questions) <= 9
    assert wrong > 385
    assert min(answers["yes"], answers["no"], answers["none"]) > 50


def test_the_truth_of_new_questions_by_hand():
    scene = (SceneObject("circle", "red", 0), SceneObject("circle", "red", 6), SceneObject("ring", "blue", 9))
    expected = {
        "are there more circles than rings ?": "yes",
        "are there more rings than circles ?": "no",
        "are there more squares than crosses ?": "no",
        "do you see a ring and no square ?": "yes",
        "do you see a ring and no circle ?": "no",
        "do you see a square and no cross ?": "no",
        "do you see a ring and a square and a circle ?": "ring and circle",
        "what color is the circle ?": "red",
        "where is the ring ?": "three two",
        "where is the circle ?": "many",
        "where is the cross ?": "none",
    }
    assert {question: answer(question, scene) for question in expected} == expected


@pytest.mark.parametrize("question", ["", "what is it ?", "how many circle do you see ?", "do you see a dog ?"])
def test_other_questions_are_refused(question):
    with pytest.raises(UserError, match=r"no true answer; ask in one of these forms: 'do you see a circle"):
        answer(question, ())


def test_scenes_are_read_from_pixels():
    rng = Random(0)
    for scene in (random_scene(rng, n) for n in range(12)):
        assert Counter(detect_scene(render(scene, 96))) == Counter(scene)


def test_prompts_have_complex_ones_where_they_have_a_weight():
    prompts = ShapesPrompts(WEIGHTS)
    assert prompts.categories == ALL_CATEGORIES
    assert Counter(e.category for e in prompts.held_out(70)) == dict.fromkeys(ALL_CATEGORIES, 10)
    assert {prompts.sample(0, i).category for i in range(200)} == set(ALL_CATEGORIES)
    assert prompts.sample_category(0, 1, COMPLEX).category == COMPLEX
    for weights in (None, {"colors": 1.0, COMPLEX: 0.0}):
        assert ShapesPrompts(weights).categories == CATEGORIES
        assert COMPLEX not in {e.category for e in ShapesPrompts(weights).held_out(70)}
    assert ShapesPrompts.categories == CATEGORIES


def test_without_sets_the_first_question_is_asked():
    one = ShapesPrompts({COMPLEX: 1.0})
    for i in range(50):
        assert one.sample(0, i).questions[0].text == SETS.sample(0, i).questions[0].text
        assert len(one.sample(0, i).questions) == 1
        assert one.sample(0, i).prompt == SETS.sample(0, i).prompt


def test_the_understanding_set_asks_all_kinds_of_questions():
    judge = ShapesJudge(categories=[*CATEGORIES, COMPLEX])
    examples, images = judge.understanding_set(210)
    assert Counter(e.category for e in examples) == dict.fromkeys(ALL_CATEGORIES, 30)
    asked = [(e, image) for e, image in zip(examples, images, strict=True) if e.category == COMPLEX]
    assert sum(judge.verdicts([e for e, _ in asked], images[6::7]).tolist()) == 15
    assert {e.question.split()[0] for e, _ in asked} >= {"do", "how", "are"}
    assert all(answer(e.question, detect_scene(image)) == e.answer for e, image in asked)
    for categories, problem in ((["complx"], "no category 'complx'"), ([], "one or more"), ("complex", "list")):
        with pytest.raises(UserError, match=problem):
            ShapesJudge(categories=categories)


def test_pretraining_mixes_it_in_where_it_has_a_weight():
    phase = data.Phase(0, 300, {COMPLEX: 4.0})
    scenes, questions, answers = data.understanding_batch(Random(0), phase)
    assert {"are", "do"} <= {question.split()[0] for question in questions}
    assert {"yes", "no"} <= set(answers)
    assert [answer(q, s) for q, s in zip(questions, scenes, strict=True)] == answers
    assert {"yes", "no"}.isdisjoint(data.understanding_batch(Random(0), data.Phase(0, 300, {"colors": 4.0}))[2])
    for weights, has_it in ((data.GENERATION_WEIGHTS, False), ({**data.GENERATION_WEIGHTS, COMPLEX: 1.0}, True)):
        prompts, _ = data.generation_batch(Random(0), data.Phase(100, 0, generation_weights=weights))
        assert any(" no " in prompt or " more " in prompt for prompt in prompts) == has_it


def test_measuring_it(capsys):
    main(["measure", "--count", "2", "--steps", "1", "--categories", "complex"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["overall", "complex"]
    assert "self_reward" in lines[3]
