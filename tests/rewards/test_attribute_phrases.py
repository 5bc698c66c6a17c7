"""How English phrases about one or two objects are read, phrase by phrase."""

from unirl.rewards.attribute import extract_facts, recall
from unirl.types import Item

RED = "red", (Item("cup", 1, "red"),)
THREE = "three cups", (Item("cup", 3),)
TWO = "two cups", (Item("cup", 2),)
CUP = "cup", (Item("cup"),)
LEFT = "The lamp is left of the cup", (Item("cup"), Item("lamp", relation=("left of", 0)))
ABOVE = "The lamp is above the cup", (Item("cup"), Item("lamp", relation=("above", 0)))
BOTH = "The cup is red and the dog is blue", (Item("cup", 1, "red"), Item("dog", 1, "blue"))
Cases = list[tuple[tuple[str, tuple[Item, ...]], str, float]]

PARTS: Cases = [
    (RED, "the cup's handle is red", 0),
    (RED, "the cup's lid is blue and the cup is red", 1),
    (RED, "the handle of the cup is red", 0),
    (RED, "the cup has a red handle", 0),
    (RED, "a cup with a red handle", 0),
    (RED, "the cup's red handle", 0),
    (RED, "the cup's handle and lid are red", 0),
    (RED, "the red cup's handle is blue", 1),
    (RED, "the cup's color is red", 1),
    (RED, "the color of the cup is red", 1),
    (RED, "the cup's red", 1),
    (RED, "the cup’s a bright red", 1),
    (RED, "it's red", 1),
    (RED, "that's a red cup", 1),
    (BOTH, "the dog's cup is red", 0.5),
    (BOTH, "the cup's red and the dog's blue", 1),
    (BOTH, "the dog's collar is blue and the cup's handle is red", 0),
    (CUP, "the cup's handle is red", 1),
    (CUP, "the handle of the cup", 1),
    (LEFT, "on the cup's left is a lamp", 1),
    (LEFT, "the lamp is on the cup's left side", 1),
    (LEFT, "the lamp is to the left of the cup's handle", 0),
]
COMPOUNDS: Cases = [
    (CUP, "a cup holder", 0),
    (CUP, "a cup-holder", 0),
    (CUP, "two cup holders", 0),
    (CUP, "cup holders", 0),
    (CUP, "a cup shade", 0),
    (CUP, "two cup shades", 0),
    (CUP, "a cup board and a cup", 1),
    (CUP, "a cup-shaped vase", 0),
    (CUP, "a coffee cup", 1),
    (CUP, "a cup of coffee", 1),
    (CUP, "a cup floating in the air", 1),
    (CUP, "the cup sits on a table", 1),
    (CUP, "a cup alone", 1),
    (CUP, "a cup object", 1),
    (CUP, "a cup filled with tea", 1),
    (CUP, "the cup touches the table", 1),
    (THREE, "three cup holders", 0),
    (THREE, "three cups total", 1),
    (THREE, "three cups altogether", 1),
    (THREE, "three cups arranged in a row", 1),
    (RED, "a red cup holder", 0),
    (RED, "the cup holder is red", 0),
    (RED, "a red cup shade", 0),
    (RED, "the cup shade is red", 0),
    (RED, "a cup in a shade of red", 1),
    (RED, "the cup is a shade of red", 1),
    (RED, "the red cup stands alone", 1),
    (LEFT, "The lamp is left of the cup holder", 0),
]
PARTIAL: Cases = [
    (THREE, "two out of three cups", 1),
    (TWO, "two out of three cups", 0),
    (TWO, "two of three cups", 0),
    (TWO, "2 of the 3 cups", 0),
    (TWO, "two of the cups", 0),
    (TWO, "two of the cups are red", 0),
    (TWO, "two of them", 0),
    (THREE, "two of the three cups are red", 1),
    (THREE, "one of three cups is red", 1),
    (THREE, "three cups, one of which is red", 1),
    (THREE, "three cups, one of them red", 1),
    (THREE, "three cups, of which two are red", 1),
    (THREE, "a group of three cups", 1),
    (TWO, "a pair of cups", 1),
    (RED, "one of the cups is red", 0),
    (RED, "some of the cups are red", 0),
    (RED, "half of the cups are red", 0),
    (RED, "two out of three cups are red", 0),
    (RED, "none of the cups is red", 0),
]
SHARES: Cases = [
    (THREE, "three cups: one red, one blue, one green", 1),
    (THREE, "three cups: one red, one blue and one green", 1),
    (THREE, "three cups (one red, two blue)", 1),
    (THREE, "three cups, one red and two blue", 1),
    (THREE, "There are three cups. One is red, one is blue and one is green.", 1),
    (THREE, "three cups, two are red and one is blue", 1),
    (THREE, "three cups: one red cup, one blue cup and one green cup", 1),
    (THREE, "three cups, one red and the others blue", 1),
    (TWO, "two cups, one on the left and one on the right", 1),
    (TWO, "two cups: one red, one blue", 1),
    (TWO, "three cups: two red, one blue", 0),
    (TWO, "two red cups and one blue cup", 0),
    (TWO, "two red cups and one blue", 0),
    (TWO, "two cups and one cup", 0),
    (TWO, "two cups, one cup", 0),
    (TWO, "two, one", 0),
    (RED, "three cups: one red, one blue, one green", 0),
]
RELATIVE: Cases = [
    (LEFT, "a cup to the left of which is a lamp", 1),
    (LEFT, "a lamp to the left of which is a cup", 0),
    (LEFT, "a cup, to the left of which is a lamp", 1),
    (LEFT, "a lamp to the right of which is a cup", 1),
    (LEFT, "a lamp to the right of which there is a cup", 1),
    (LEFT, "a lamp which is left of a cup", 1),
    (LEFT, "a cup which is left of a lamp", 0),
    (LEFT, "a cup to whose left is a lamp", 1),
    (ABOVE, "a cup above which is a lamp", 1),
    (ABOVE, "a cup above which there is a lamp", 1),
    (ABOVE, "a lamp above which is a cup", 0),
    (ABOVE, "a lamp under which stands a cup", 1),
    (ABOVE, "a lamp that is above a cup", 1),
]


def misread(cases: Cases) -> list[str]:
    problems = []
    for (truth, objects), text, expected in cases:
        score = recall(extract_facts(truth, objects), extract_facts(text, objects))
        if score != expected:
            problems.append(f"{text!r} scores {score:g} for {truth!r}, expected {expected:g}")
    return problems


def test_a_part_is_not_the_whole() -> None:
    assert misread(PARTS) == []


def test_a_compound_is_another_object() -> None:
    assert misread(COMPOUNDS) == []


def test_some_of_several_objects_are_not_all() -> None:
    assert misread(PARTIAL) == []


def test_the_shares_of_a_total_are_no_other_numbers() -> None:
    assert misread(SHARES) == []


def test_relative_clauses_say_what_is_placed() -> None:
    assert misread(RELATIVE) == []
