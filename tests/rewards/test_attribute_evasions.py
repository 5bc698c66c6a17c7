"""Answers that hedge, negate, or are about something else state no facts of the correct answer."""

from unirl.rewards.attribute import extract_facts, recall
from unirl.types import Item

BOTH = (Item("cup"), Item("dog"))
THREE = (Item("cup", 3),)
RED = (Item("cup", 1, "red"),)


def scored(truth: str, text: str, objects: tuple[Item, ...]) -> float:
    return recall(extract_facts(truth, objects), extract_facts(text, objects))


def placed(relation: str, text: str) -> float:
    objects = (Item("lamp"), Item("cup", relation=(relation, 0)))
    return scored(f"The cup is {relation} the lamp", text, objects)


def test_objects_that_are_missing_are_not_stated() -> None:
    texts = [
        *("The cup and the dog are missing", "The cup and the dog are not visible in the picture"),
        *("Both the cup and the dog are absent", "There is a cup and a dog? I cannot see them", "cup, dog: missing"),
        *("I cannot see a lamp and a cup and a dog", "A cup and a dog, neither is visible"),
        *("It is impossible to see a cup and a dog", "a cup instead of a dog"),
        "a cup rather than a dog",
    ]
    assert {text: scored("There is a cup and a dog", text, BOTH) for text in texts} == dict.fromkeys(texts, 0)


def test_negations_of_other_facts_make_no_difference() -> None:
    assert scored("There is a cup and a dog", "There is a cup and a dog. The dog is not red.", BOTH) == 1
    assert scored("There is a cup and a dog", "A cup and a dog. I do not see a cat.", BOTH) == 1
    assert scored("There is a cup and a dog", "A cup, but the dog is missing", BOTH) == 0.5
    assert scored("three cups", "The three cups and the lamp are missing", THREE) == 0
    assert scored("three cups", "three cups and no lamp", THREE) == 1
    assert placed("left of", "The lamp is missing, the cup is on the left") == 0
    assert placed("left of", "The cup is not right of the lamp, it is left of the lamp") == 1


def test_right_next_to_is_not_on_the_right() -> None:
    texts = [
        *("The cup is right next to the lamp.", "The cup is right behind the lamp.", "right beside the lamp"),
        *("The cup is right by the lamp", "The cup is right above the lamp.", "The lamp is right in front of the cup."),
    ]
    assert {text: placed("right of", text) for text in texts} == dict.fromkeys(texts, 0)


def test_on_the_right_is_a_relation() -> None:
    texts = ["right", "on the right", "to the right of the lamp", "right of the lamp", "the right side", "It is right."]
    assert {text: placed("right of", text) for text in texts} == dict.fromkeys(texts, 1)


def test_relations_to_other_objects_are_other_facts() -> None:
    cases = [
        ("left of", "The cup is to the left of the plate."),
        ("left of", "The cup is left of a plate."),
        ("above", "The cup is above the table."),
        ("above", "The cup is on top of a table next to the lamp."),
        ("left of", "The cup is facing left."),
        ("left of", "The cup is near the lamp, which is on the left."),
    ]
    assert {(relation, text): placed(relation, text) for relation, text in cases} == dict.fromkeys(cases, 0)


def test_the_image_is_not_another_object() -> None:
    cases = [
        ("left of", "The cup is on the left side of the picture and the lamp is on the right"),
        ("left of", "The cup is to the left of the frame"),
        ("left of", "On the left of the table, the cup is left of the lamp"),
        ("above", "The cup is at the top of the image"),
        ("above", "The cup is right above the lamp."),
        ("left of", "From left to right: cup, lamp. The cup is left of the lamp."),
    ]
    assert {(relation, text): placed(relation, text) for relation, text in cases} == dict.fromkeys(cases, 1)


def test_bounds_hedges_and_large_numbers_are_not_three() -> None:
    texts = [
        *("There are over three cups", "There are nearly three cups", "up to three cups", "almost three cups"),
        *("There may be three cups", "There might be three cups", "thirty-three cups", "three dozen cups", "33 cups"),
        *("three hundred cups", "3,000 cups", "3+ cups", "three red cups and several blue cups", "under three cups"),
        "3 cups and some more cups",
    ]
    assert {text: scored("three cups", text, THREE) for text in texts} == dict.fromkeys(texts, 0)


def test_large_numbers() -> None:
    many = (Item("cup", 25),)
    assert [scored("25 cups", text, many) for text in ("25 cups", "two cups", "a dozen cups", "52 cups")] == [
        1,
        0,
        0,
        0,
    ]
    assert scored("12 cups", "a dozen cups", (Item("cup", 12),)) == 1


def test_a_hedged_color_is_not_stated() -> None:
    texts = ["The cup might be red", "It could be red", "perhaps red"]
    assert {text: scored("red", text, RED) for text in texts} == dict.fromkeys(texts, 0)


def test_a_negated_color_does_not_contradict_another_one() -> None:
    assert [scored("red", text, RED) for text in ("not blue but red", "red, not blue", "not red but red")] == [1, 1, 0]


def test_an_orange_cup_is_not_an_orange() -> None:
    both = (Item("cup"), Item("orange"))
    truth = "There is a cup and an orange"
    assert scored(truth, "The picture shows an orange cup on a table.", both) == 0.5
    assert scored(truth, "an orange and a cup", both) == 1
    assert scored(truth, "a cup and an orange on a table", both) == 1
    assert scored("three oranges", "There are three orange lamps.", (Item("orange", 3),)) == 0
    assert scored("three oranges", "There are three oranges.", (Item("orange", 3),)) == 1
