"""Examples: their texts and items, one question or a set of them, and sets that cannot be scored."""

import json
import pickle
import unicodedata
from dataclasses import replace

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unirl import Example, Item, Question, Rollout, UserError, question_rows
from unirl.testing import make_answers, make_images
from unirl.types import to_device

CUP = Question("is there a cup ?", "yes", ("yes", "no"))
COLOR = Question("which color is it ?", "red", requires=(0,))
SET = Example("a photo of a red cup", category="colors", questions=(CUP, COLOR))
ONE = Example("a photo of a ring", "what is it ?", "ring", "single_object")


def test_one_question_is_a_set_of_one() -> None:
    assert ONE.questions == (Question("what is it ?", "ring"),)
    assert replace(ONE, answer="cross").questions == (Question("what is it ?", "cross"),)
    assert replace(ONE, category="c").questions == ONE.questions
    assert Example("a ring", questions=(Question("what is it ?", "ring"),), category="single_object") == replace(
        ONE, prompt="a ring"
    )


def test_the_first_question_is_the_main_one() -> None:
    assert (SET.question, SET.answer) == ("is there a cup ?", "yes")
    assert replace(SET, category="c").questions == SET.questions
    assert len({SET, replace(SET), ONE}) == 2
    assert pickle.loads(pickle.dumps(SET)) == SET
    with pytest.raises(UserError, match=r"prompt 'a photo of a ring': 'question' and 'answer' are .* leave the first"):
        replace(ONE, questions=(CUP, COLOR))


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ((CUP, Question(" ", "red")), r"questions\[1\] has an empty text"),
        ((CUP, Question("which color ?", "")), r"questions\[1\] has an empty answer"),
        ((Question("which color ?", "red", ("blue", "green")),), r"questions\[0\] has the answer 'red', which is not"),
        ((Question("which color ?", "red", ("red",)),), "has the one choice 'red'; give two or more"),
        ((Question("which color ?", "red", ("red", "blue", "blue")),), "has a choice twice"),
        ((Question("which color ?", "red", ("red", "")),), "has an empty choice"),
        ((CUP, Question("which color ?", "red", requires=(1,))), r"questions\[1\] requires itself"),
        ((CUP, Question("which color ?", "red", requires=(2,))), "requires question 2, and there are 2"),
        ((CUP, Question("which color ?", "red", requires=(-1,))), "requires question -1"),
        (
            (CUP, replace(COLOR, requires=(2,)), replace(COLOR, requires=(1,))),
            r"require each other in a circle \((1 -> 2 -> 1|2 -> 1 -> 2)\)",
        ),
    ],
)
def test_a_set_that_cannot_be_scored_is_refused(questions: tuple[Question, ...], message: str) -> None:
    with pytest.raises(UserError, match=f"^prompt 'a cup': .*{message}"):
        Example("a cup", questions=questions)


def rollout() -> Rollout:
    """Two images of an example with two questions, and one of an example with one."""
    examples = [SET, SET, ONE]
    answers = make_answers(["yes", "red", "no", "blue", "a ring", ""])
    answers.mask[5] = False
    ones = torch.ones(3)
    return Rollout(examples, make_images(3), answers, ones, {}, ones > 0, 1)


def test_rows_of_answers_belong_to_images() -> None:
    several = rollout()
    assert several.num_questions == 2
    assert several.questions == [CUP.text, COLOR.text] * 2 + [ONE.question] * 2
    assert several.target_answers == ["yes", "red"] * 2 + ["ring"] * 2
    assert several.first_answers.text == ["yes", "no", "a ring"]
    assert several.answer_weights.tolist() == [0.5, 0.5, 0.5, 0.5, 1.0, 0.0]
    assert several.per_answer(torch.tensor([2.0, 0.0, 3.0])).tolist() == [1.0, 1.0, 0.0, 0.0, 3.0, 0.0]
    assert several.answer_rows(torch.tensor([2, 0])).tolist() == [4, 5, 0, 1]


def test_one_answer_for_each_image_is_that_to_the_first_question() -> None:
    several = rollout()
    first = replace(several, answers=several.first_answers)
    assert first.questions == [CUP.text, CUP.text, ONE.question]
    assert first.first_answers is first.answers
    assert first.answer_weights.tolist() == [1.0, 1.0, 1.0]
    assert question_rows([]) == []


def test_checkpoints_hold_sets_of_questions(tmp_path) -> None:
    several = to_device(rollout(), torch.device("cpu"))
    torch.save(several, tmp_path / "rollout")
    assert torch.load(tmp_path / "rollout", weights_only=True).examples == several.examples


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Example, "the prompt"),
        (lambda text: Example("p", text), "the question"),
        (lambda text: Example("p", "q", text), "the answer"),
        (lambda text: Example("p", "q", "a", text), "the category"),
        (lambda text: Question("q", "a", ("a", text)), "the choice"),
        (Item, "the name of an object"),
        (lambda text: Item("cup", color=text), "the color of 'cup'"),
    ],
)
def test_text_that_cannot_be_tokenized_or_printed_is_refused_with_its_place(make, message: str) -> None:
    for bad in ("\ud83d", "\udcff", "\0", "\x1b", "\x7f", "\x9b"):
        with pytest.raises(UserError, match=rf"{message} .* U\+{ord(bad):04X} at position 8"):
            make(f"two red{bad} cups")
    with pytest.raises(UserError, match=f"{message} .*3; it must be text"):
        make(3)


@given(st.text(st.characters(exclude_categories=())))
def test_text_that_is_accepted_can_be_written(text: str) -> None:
    try:
        example = Example(text)
    except UserError:
        assert any(category in ("Cc", "Cs") for category in map(unicodedata.category, text))
        return
    assert json.loads(json.dumps(example.prompt, ensure_ascii=False).encode()) == text
    assert yaml.safe_load(yaml.safe_dump([text])) == [text]


def test_items_that_no_image_can_show_are_refused() -> None:
    with pytest.raises(UserError, match="the count of 'cup' is -1; it must be 0 or more"):
        Item("cup", -1)
    with pytest.raises(
        UserError, match=r"objects\[0\] has the relation \('above', 0\); its number must be that of an ear"
    ):
        Example("p", objects=(Item("cup", relation=("above", 0)),))
