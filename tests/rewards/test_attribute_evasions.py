"""Answers that avoid the question, deny what they name, or are about something else have none of its facts."""

import pytest

from unirl.rewards.attribute import agreement, facts
from unirl.types import Item

BOTH = (Item("cup"), Item("dog"))
THREE = (Item("cup", 3),)
RED = (Item("cup", 1, "red"),)


def said(truth: str, text: str, objects: tuple[Item, ...]) -> float:
    return agreement(facts(truth, objects), facts(text, objects))


def placed(relation: str, text: str) -> float:
    objects = (Item("lamp"), Item("cup", relation=(relation, 0)))
    return said(f"The cup is {relation} the lamp", text, objects)


@pytest.mark.parametrize(
    "text",
    [
        *("The cup and the dog are missing", "The cup and the dog are not visible in the picture"),
        *("Both the cup and the dog are absent", "There is a cup and a dog? I cannot see them", "cup, dog: missing"),
        *("I cannot see a lamp and a cup and a dog", "A cup and a dog, neither is visible"),
        *("It is impossible to see a cup and a dog", "a cup instead of a dog"),
        "a cup rather than a dog",
    ],
)
def test_things_that_are_said_to_be_missing_are_not_there(text: str) -> None:
    assert said("There is a cup and a dog", text, BOTH) == 0


def test_what_is_not_denied_stays() -> None:
    assert said("There is a cup and a dog", "There is a cup and a dog. The dog is not red.", BOTH) == 1
    assert said("There is a cup and a dog", "A cup and a dog. I do not see a cat.", BOTH) == 1
    assert said("There is a cup and a dog", "A cup, but the dog is missing", BOTH) == 0.5
    assert said("three cups", "The three cups and the lamp are missing", THREE) == 0
    assert said("three cups", "three cups and no lamp", THREE) == 1
    assert placed("left of", "The lamp is missing, the cup is on the left") == 0
    assert placed("left of", "The cup is not right of the lamp, it is left of the lamp") == 1


@pytest.mark.parametrize(
    "text",
    [
        *("The cup is right next to the lamp.", "The cup is right behind the lamp.", "right beside the lamp"),
        *("The cup is right by the lamp", "The cup is right above the lamp.", "The lamp is right in front of the cup."),
    ],
)
def test_right_next_to_is_not_on_the_right(text: str) -> None:
    assert placed("right of", text) == 0


@pytest.mark.parametrize(
    "text", ["right", "on the right", "to the right of the lamp", "right of the lamp", "the right side", "It is right."]
)
def test_on_the_right_is(text: str) -> None:
    assert placed("right of", text) == 1


@pytest.mark.parametrize(
    ("relation", "text"),
    [
        ("left of", "The cup is to the left of the plate."),
        ("left of", "The cup is left of a plate."),
        ("above", "The cup is above the table."),
        ("above", "The cup is on top of a table next to the lamp."),
        ("left of", "The cup is facing left."),
        ("left of", "The cup is near the lamp, which is on the left."),
    ],
)
def test_seen_from_something_else_is_another_place(relation: str, text: str) -> None:
    assert placed(relation, text) == 0


@pytest.mark.parametrize(
    ("relation", "text"),
    [
        ("left of", "The cup is on the left side of the picture and the lamp is on the right"),
        ("left of", "The cup is to the left of the frame"),
        ("left of", "On the left of the table, the cup is left of the lamp"),
        ("above", "The cup is at the top of the image"),
        ("above", "The cup is right above the lamp."),
        ("left of", "From left to right: cup, lamp. The cup is left of the lamp."),
    ],
)
def test_seen_from_the_picture_is_no_other_thing(relation: str, text: str) -> None:
    assert placed(relation, text) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("There are over three cups", "There are nearly three cups", "up to three cups", "almost three cups"),
        *("There may be three cups", "There might be three cups", "thirty-three cups", "three dozen cups", "33 cups"),
        *("three hundred cups", "3,000 cups", "3+ cups", "three red cups and several blue cups", "under three cups"),
        "3 cups and some more cups",
    ],
)
def test_bounds_hedges_and_large_numbers_are_not_three(text: str) -> None:
    assert said("three cups", text, THREE) == 0


def test_large_numbers_are_read() -> None:
    many = (Item("cup", 25),)
    assert [said("25 cups", text, many) for text in ("25 cups", "two cups", "a dozen cups", "52 cups")] == [1, 0, 0, 0]
    assert said("12 cups", "a dozen cups", (Item("cup", 12),)) == 1


@pytest.mark.parametrize("text", ["The cup might be red", "It could be red", "perhaps red"])
def test_a_color_that_only_may_be_is_not_stated(text: str) -> None:
    assert said("red", text, RED) == 0


def test_what_it_is_not_says_nothing_against_what_it_is() -> None:
    assert [said("red", text, RED) for text in ("not blue but red", "red, not blue", "not red but red")] == [1, 1, 0]


def test_an_orange_cup_is_no_orange() -> None:
    both = (Item("cup"), Item("orange"))
    truth = "There is a cup and an orange"
    assert said(truth, "The picture shows an orange cup on a table.", both) == 0.5
    assert said(truth, "an orange and a cup", both) == 1
    assert said(truth, "a cup and an orange on a table", both) == 1
    assert said("three oranges", "There are three orange lamps.", (Item("orange", 3),)) == 0
    assert said("three oranges", "There are three oranges.", (Item("orange", 3),)) == 1
