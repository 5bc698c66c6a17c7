from unirl.rewards.attribute import extract_facts, recall
from unirl.rewards.attribute.lexicon import COLORS, SYNONYMS
from unirl.types import Item

COLORED = (Item("circle", 1, "red"), Item("cross", 1, "blue"))
PLACED = (Item("cross"), Item("circle", relation=("left of", 0)))
STACKED = (Item("cross"), Item("circle", relation=("above", 0)))
CUP_AND_DOG = (Item("cup"), Item("dog"))


def score(truth: str, text: str, objects: tuple[Item, ...]) -> float:
    return recall(extract_facts(truth, objects), extract_facts(text, objects))


def colored(text: str) -> float:
    return score("The circle is red and the cross is blue", text, COLORED)


def placed(text: str) -> float:
    return score("The circle is left of the cross", text, PLACED)


def test_each_object_has_its_own_color() -> None:
    texts = [
        *("Circle: {}\nCross: {}", "- Circle: {}\n- Cross: {}", "circle\n{}\ncross\n{}", "circle: {} cross: {}"),
        *("the circle is {} the cross is {}", "a {} circle a {} cross", "{} is the circle {} is the cross"),
        *("circle ({}) cross ({})", "circle ({}), cross ({})", "circle {} cross {}", "{} circle {} cross"),
        *(
            "circle: {} / cross: {}",
            "| circle | {} |\n| cross | {} |",
            "{}: circle, {}: cross",
            "circle is {} cross is {}",
        ),
        *("circle — {}, cross — {}", "{} — circle, {} — cross", "circle: {} -- cross: {}", "{}/{}", "Yes, {} and {}"),
        *("the circle and the cross are {} and {} respectively", "circle and cross: {}, {}"),
        *("There is a circle and a cross. They are {} and {}.", "the cross next to the {0} circle is {1}"),
        *("the circle next to the cross is {} and the cross is {}", "a {} circle left of a {} cross"),
    ]
    assert {
        text: [colored(text.format(*colors)) for colors in (("red", "blue"), ("blue", "red"))] for text in texts
    } == {text: [1, 0] for text in texts}


def test_other_words_make_no_difference() -> None:
    texts = [
        *("The image shows a circle that is {} and a cross that is {}", "answer: the circle is {} and the cross is {}"),
        *("The circle is definitely {} and the cross is {}, clearly", "the circle in {} and the cross in {}"),
        *(
            "The circle appears to be {}. The cross looks {}.",
            "The circle is {} because it is painted; the cross is {}",
        ),
        *(f"the circle is {{}} {word} the cross is {{}}" for word in ("then", "yet", "although", "as well as", "plus")),
        *(f"the circle is {{}}, {word} the cross is {{}}" for word in ("then", "whereas", "though", "however")),
        *("the circle is bright {} and the cross is a dark {}", "a circle, which is {}, next to a cross, which is {}"),
        *("The circle's color is {} and the color of the cross is {}", "a {} circle and a {} cross on a white table"),
    ]
    assert {
        text: [colored(text.format(*colors)) for colors in (("red", "blue"), ("blue", "red"))] for text in texts
    } == {text: [1, 0] for text in texts}


def test_a_color_belongs_to_the_object_named_before() -> None:
    cases = [
        *(("the circle is red and blue", 0), ("red circle and blue", 0), ("the circle is red. blue.", 0)),
        *(("a red and blue cross", 0), ("red & blue cross", 0), ("red or blue", 0), ("red circle or blue cross", 0)),
        *(("the circle and the cross are red", 0.5), ("a circle and a cross, both red", 0.5), ("red", 0.5)),
        *(
            ("the square is red and blue", 0),
            ("circle, red", 0.5),
            ("none and blue", 0.5),
            ("a circle by a red box", 0),
        ),
    ]
    assert {(text, part): colored(text) for text, part in cases} == {(text, part): part for text, part in cases}


def test_relations_have_subject_and_target() -> None:
    texts = [
        *(
            "on the {} is a circle and on the {} is a cross",
            "On the {}, there is a circle; on the {}, there is a cross",
        ),
        *("{}: circle, {}: cross", "{}: circle\n{}: cross", "circle ({}), cross ({})", "circle {} cross {}"),
        *("a circle on the {} with a cross on the {}", "the {} shape is a circle, the {} one is a cross"),
        *("The circle is on the {} side of the image, the cross on the {}", "{} circle {} cross"),
        *("the circle and the cross are {} and {}", "a cross with a circle to its {}", "on the {} is a circle"),
        *(
            "a cross with a circle to the {} of it",
            "the cross has the circle on its {}",
            "on the cross's {} is a circle",
        ),
        *("a circle with a cross to its {1}", "to the {1} of the circle is a cross", "the cross is on the {1}"),
        *("the circle has a cross to the {1} of it", "{0} of the cross", "to the {}", "the circle is on the {} of it"),
        *("a circle, and to its {1}, a cross", "a cross whose {} side has a circle", "from the cross, {}"),
        *("in relation to the cross the circle is on the {}", "on the {} hand side of the cross is a circle"),
        *("the cross is below the circle and to the {1}", "the circle is above the cross and to the {}", "circle, {}"),
    ]
    assert {
        text: [placed(text.format(*sides)) for sides in (("left", "right"), ("right", "left"))] for text in texts
    } == {text: [1, 0] for text in texts}


def test_both_objects_on_one_side_is_no_relation() -> None:
    texts = "the circle and the cross are on the left", "left and right", "left: cross, left: circle"
    assert [placed(text) for text in texts] == [0] * 3


def test_above_with_and_without_its_target() -> None:
    texts = [
        *("{0} is a {1}", "{0}: {1}", "a {2} with a {1} {0}", "a {2} with a {1} {0} it", "the {1} is {0}"),
        *("{0} the {2} is the {1}", "{1} {0} {2}", "{0} the {2}, there is a {1}"),
    ]
    orders = ("circle", "cross"), ("cross", "circle")
    assert {
        text: [score("The circle is above the cross", text.format("above", *names), STACKED) for names in orders]
        for text in texts
    } == {text: [1, 0] for text in texts}


def test_shades_and_synonyms_of_a_color() -> None:
    shades = {
        **{"brown": ("dark brown", "The cup is a light brown", "tan", "beige", "a shade of brown")},
        **{"green": ("light green", "forest green"), "blue": ("sky blue", "deep blue", "cyan", "in blue")},
        **{"yellow": ("gold", "golden", "bright yellow"), "pink": ("hot pink", "a pale pink cup")},
    }
    cases = [(color, text) for color, texts in shades.items() for text in texts]
    assert [case for case in cases if score(*case, (Item("cup", 1, case[0]),)) != 1] == []
    others = [*cases, ("red", "dark"), ("red", "sky")]
    assert [(color, text) for color, text in others if score("red", text, (Item("cup", 1, color),)) != 0] == []


def test_a_color_between_two_equals_neither() -> None:
    between = [name for name, color in SYNONYMS.items() if color not in COLORS]
    assert between == ["teal", "turquoise", "indigo"]
    assert [score(color, name, (Item("cup", 1, color),)) for name in between for color in COLORS] == [0] * 33


def test_numbers_in_other_words() -> None:
    cases = [
        *(("two circles", "a pair of circles", 1), ("two circles", "a couple of red circles", 1)),
        *(("two circles", "2circles", 1), ("two circles", "2x circles", 1), ("two circles", "circles (2)", 1)),
        *(("one circle", "a single circle", 1), ("one circle", "only a single circle", 1)),
        *(("two circles", "a single circle", 0), ("one circle", "a pair of circles", 0), ("one circle", "2circles", 0)),
        *(("two circles", "a pair of squares", 0), ("two circles", "three circles, a pair of circles", 0)),
        *(
            ("four circles", "between three and four circles", 0),
            ("four circles", "next to the circles are four cups", 0),
        ),
        *(("two circles", "hardly two circles", 0), ("two circles", "not a couple of circles", 0)),
    ]
    assert {(truth, text, right): score(truth, text, (Item("circle", 2),)) for truth, text, right in cases} == {
        (truth, text, right): right for truth, text, right in cases
    }


def test_a_pair_of_scissors_is_one() -> None:
    texts = "two pairs of scissors", "a pair of scissors", "a single pair of scissors"
    assert [score("two pairs of scissors", text, (Item("scissors", 2),)) for text in texts] == [1, 0, 0]
    assert score("one pair of scissors", "a single pair of scissors", (Item("scissors"),)) == 1


def test_negated_and_alternative_objects_are_not_stated() -> None:
    cases = [
        *(("cup or dog", 0), ("either a cup or a dog", 0), ("either a cup, or a dog", 0), ("a cup, a dog or a cat", 0)),
        *(("a cup and maybe a dog", 0.5), ("a cup and a dog or a wolf", 0.5), ("I cannot see a cup but a dog", 0.5)),
        *(("hardly a cup", 0), ("barely a dog", 0), ("I can't see a cup", 0), ("the cup is missing", 0)),
        *(
            ("hot dog and cup", 0.5),
            ("a dog and a hot dog and a cup", 1),
            ("cup, dog", 1),
            ("a dog as well as a cup", 1),
        ),
        *(("I can see a cup and a dog", 1), ("a cup, a dog and a cat", 1), ("yes, cup and dog", 1)),
    ]
    assert {(text, part): score("There is a cup and a dog", text, CUP_AND_DOG) for text, part in cases} == {
        (text, part): part for text, part in cases
    }


def test_without_objects_the_facts_are_the_same() -> None:
    truth = extract_facts("The circle is red and the cross is blue")
    same = "Circle: red\nCross: blue", "circle red cross blue", "the circle and the cross are red and blue"
    assert [recall(truth, extract_facts(text)) for text in same] == [1] * 3
    swapped = "Circle: blue\nCross: red", "circle blue cross red", "the circle and the cross are blue and red"
    assert [recall(truth, extract_facts(text)) for text in swapped] == [0] * 3
    assert extract_facts("to the left of the cat is the dog") == extract_facts("a cat with a dog to its left")
