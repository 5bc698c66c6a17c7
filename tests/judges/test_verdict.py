import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl.judges.verdict import Detection, relation, verdict
from unirl.types import Item


def cat(x=0.0, y=0.0, *, confidence=0.95, color=None, name="cat", size=2.0):
    return Detection(name, (x, y, x + size, y + size), confidence, color)


def dog(*args, **kwargs):
    return cat(*args, **kwargs, name="dog")


def correct(objects, detections, exclude=(), **options):
    return verdict(objects, exclude, detections, **options).correct


@pytest.mark.parametrize(("found", "right"), [(0, False), (1, False), (2, True), (3, True)])
def test_an_object_asks_for_at_least_its_count(found, right):
    assert correct([Item("cat", 2)], [cat(i) for i in range(found)]) is right


def test_other_things_are_forgiven():
    assert correct([Item("cat")], [cat(), dog(), dog(5)])


def test_every_object_must_be_there():
    result = verdict([Item("cat"), Item("dog", 2)], (), [cat(), dog()])
    assert not result.correct
    assert result.reason == "expected dog>=2, found 1"


@pytest.mark.parametrize(("found", "right"), [(2, True), (3, False), (4, False)])
def test_exclude_forbids_its_count_and_more(found, right):
    assert correct([Item("cat", 2)], [cat(i) for i in range(found)], [Item("cat", 3)]) is right


def test_exclude_of_another_class():
    assert not correct([Item("cat")], [cat(), dog()], [Item("dog", 1)])
    assert correct([Item("cat")], [cat()], [Item("dog", 1)])


def test_thresholds_are_exclusive_and_counting_has_its_own():
    assert not correct([Item("cat")], [cat(confidence=0.3)])
    assert correct([Item("cat")], [cat(confidence=0.31)])
    assert not correct([Item("cat")], [cat(confidence=0.9)], counting=True)
    assert correct([Item("cat")], [cat(confidence=0.91)], counting=True)
    assert correct([Item("cat")], [cat(confidence=0.2)], threshold=0.1)
    assert correct([Item("cat")], [cat(confidence=0.6)], counting=True, counting_threshold=0.5)


def test_unsure_extras_do_not_break_a_count():
    sure = [cat(i) for i in range(3)]
    assert correct([Item("cat", 3)], [*sure, cat(9, confidence=0.8)], [Item("cat", 4)], counting=True)
    assert not correct([Item("cat", 3)], [*sure, cat(9, confidence=0.8)], [Item("cat", 4)])


def test_at_most_sixteen_of_a_class_are_looked_at():
    crowd = [cat(i) for i in range(20)]
    assert correct([Item("cat", 16)], crowd, [Item("cat", 17)])
    assert not correct([Item("cat", 17)], crowd)
    assert correct([Item("cat", 2)], crowd, [Item("cat", 3)], most=2)


def test_only_the_most_confident_are_asked_for_their_color():
    pale = [cat(0, confidence=0.5, color="red"), cat(5, confidence=0.9, color="blue")]
    assert not correct([Item("cat", 1, "red")], pale)
    assert correct([Item("cat", 1, "blue")], pale)
    assert not correct([Item("cat", 2, "red")], pale)
    assert correct([Item("cat", 2, "red")], [*pale[:1], cat(9, color="red")])


def test_colors_bind_to_their_object():
    wanted = [Item("cat", 1, "red"), Item("dog", 1, "blue")]
    assert correct(wanted, [cat(color="red"), dog(color="blue")])
    assert not correct(wanted, [cat(color="blue"), dog(color="red")])


LEFT_OF_DOG = [Item("dog"), Item("cat", relation=("left of", 0))]


def test_position():
    assert correct(LEFT_OF_DOG, [cat(0), dog(10)])
    assert not correct(LEFT_OF_DOG, [cat(10), dog(0)])
    assert not correct(LEFT_OF_DOG, [cat(0, 0), dog(0, 10)])


def test_position_looks_at_the_most_confident_box_only():
    assert correct(LEFT_OF_DOG, [cat(20, confidence=0.5), cat(0), dog(10)])
    assert not correct(LEFT_OF_DOG, [cat(20), cat(0, confidence=0.5), dog(10)])


def test_position_holds_from_every_one_to_every_target():
    wanted = [Item("dog", 2), Item("cat", 2, relation=("left of", 0))]
    assert correct(wanted, [cat(0), cat(1), dog(10), dog(12)])
    assert not correct(wanted, [cat(0), cat(11), dog(10), dog(14)])
    assert not correct(wanted, [cat(5), cat(6), dog(10), dog(0)])


def test_position_from_an_unmatched_target_is_wrong():
    wanted = [Item("dog", 1, "red"), Item("cat", relation=("left of", 0))]
    result = verdict(wanted, (), [cat(0), dog(10, color="blue")])
    assert result.reason == "expected red dog>=1, found 0; no target for cat to be left of"
    assert not correct(LEFT_OF_DOG, [cat(0)])


def test_position_is_looked_at_only_where_the_color_is_right():
    wanted = [Item("dog"), Item("cat", 1, "red", ("left of", 0))]
    assert correct(wanted, [cat(0, color="red"), dog(10)])
    assert verdict(wanted, (), [cat(20, color="blue"), dog(10)]).reason == "expected red cat>=1, found 0"


def test_a_relation_must_point_back():
    with pytest.raises(ValueError, match="earlier item"):
        verdict([Item("cat", relation=("left of", 0))], (), [cat()])


@pytest.mark.parametrize(
    ("x", "y", "holds"),
    [
        (-10, 0, {"left of"}),
        (10, 0, {"right of"}),
        (0, -10, {"above"}),
        (0, 10, {"below"}),
        (-10, -10, {"left of", "above"}),
        (10, 10, {"right of", "below"}),
        (10, 4, {"right of"}),
        (0, 0, set()),
        (0.3, 0.3, set()),
    ],
)
def test_relation(x, y, holds):
    assert relation(cat(x, y).box, cat().box) == holds


def test_shrinking_takes_a_tenth_of_both_sizes_and_divides_by_the_unshrunk_length():
    # Sizes 2 + 2: the offset shrinks by 0.4. (0.79 - 0.4) / 0.79 = 0.494 is not enough, (0.81 - 0.4) / 0.81 = 0.506 is.
    assert relation(cat(0.79).box, cat().box) == set()
    assert relation(cat(0.81).box, cat().box) == {"right of"}
    # Sizes 2 + 4 with the centres 1.19 and 1.21 apart: each box brings its own size.
    assert relation(cat(2.19, 1).box, cat(size=4).box) == set()
    assert relation(cat(2.21, 1).box, cat(size=4).box) == {"right of"}


box = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.1, 20)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(box, box)
def test_relations_mirror(a, b):
    held = relation(a, b)
    assert relation(b, a) == {OPPOSITE[name] for name in held}
    assert len(held) <= 2
    assert not any(OPPOSITE[name] in held for name in held)
