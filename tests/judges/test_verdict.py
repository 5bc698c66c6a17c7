import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl.judges import Detection, spatial_relations, verdict
from unirl.types import Item


def cat(x=0.0, y=0.0, *, confidence=0.95, color=None, name="cat", size=2.0):
    return Detection(name, (x, y, x + size, y + size), confidence, color)


def dog(*args, **kwargs):
    return cat(*args, **kwargs, name="dog")


def correct(objects, detections, exclude=(), **options):
    return verdict(objects, exclude, detections, **options).correct


def test_at_least_count_objects_are_needed():
    verdicts = [correct([Item("cat", 2)], [cat(i) for i in range(count)]) for count in range(4)]
    assert verdicts == [False, False, True, True]


def test_other_objects_make_no_difference():
    assert correct([Item("cat")], [cat(), dog(), dog(5)])


def test_all_objects_are_needed():
    result = verdict([Item("cat"), Item("dog", 2)], (), [cat(), dog()])
    assert not result.correct
    assert result.reason == "expected dog>=2, found 1"


def test_count_or_more_excluded_objects_are_wrong():
    verdicts = [correct([Item("cat", 2)], [cat(i) for i in range(count)], [Item("cat", 3)]) for count in (2, 3, 4)]
    assert verdicts == [True, False, False]


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


def test_detections_of_low_confidence_are_not_counted():
    confident = [cat(i) for i in range(3)]
    assert correct([Item("cat", 3)], [*confident, cat(9, confidence=0.8)], [Item("cat", 4)], counting=True)
    assert not correct([Item("cat", 3)], [*confident, cat(9, confidence=0.8)], [Item("cat", 4)])


def test_at_most_sixteen_detections_of_a_class_are_considered():
    crowd = [cat(i) for i in range(20)]
    assert correct([Item("cat", 16)], crowd, [Item("cat", 17)])
    assert not correct([Item("cat", 17)], crowd)
    assert correct([Item("cat", 2)], crowd, [Item("cat", 3)], max_per_class=2)


def test_colors_of_the_most_confident_detections_are_compared():
    colored = [cat(0, confidence=0.5, color="red"), cat(5, confidence=0.9, color="blue")]
    assert not correct([Item("cat", 1, "red")], colored)
    assert correct([Item("cat", 1, "blue")], colored)
    assert not correct([Item("cat", 2, "red")], colored)
    assert correct([Item("cat", 2, "red")], [*colored[:1], cat(9, color="red")])


def test_colors_bind_to_their_object():
    objects = [Item("cat", 1, "red"), Item("dog", 1, "blue")]
    assert correct(objects, [cat(color="red"), dog(color="blue")])
    assert not correct(objects, [cat(color="blue"), dog(color="red")])


LEFT_OF_DOG = [Item("dog"), Item("cat", relation=("left of", 0))]


def test_position():
    assert correct(LEFT_OF_DOG, [cat(0), dog(10)])
    assert not correct(LEFT_OF_DOG, [cat(10), dog(0)])
    assert not correct(LEFT_OF_DOG, [cat(0, 0), dog(0, 10)])


def test_position_of_the_most_confident_detection_is_compared():
    assert correct(LEFT_OF_DOG, [cat(20, confidence=0.5), cat(0), dog(10)])
    assert not correct(LEFT_OF_DOG, [cat(20), cat(0, confidence=0.5), dog(10)])


def test_position_must_hold_for_all_pairs_of_objects():
    objects = [Item("dog", 2), Item("cat", 2, relation=("left of", 0))]
    assert correct(objects, [cat(0), cat(1), dog(10), dog(12)])
    assert not correct(objects, [cat(0), cat(11), dog(10), dog(14)])
    assert not correct(objects, [cat(5), cat(6), dog(10), dog(0)])


def test_position_from_an_unmatched_target_is_wrong():
    objects = [Item("dog", 1, "red"), Item("cat", relation=("left of", 0))]
    result = verdict(objects, (), [cat(0), dog(10, color="blue")])
    assert result.reason == "expected red dog>=1, found 0; no target for cat to be left of"
    assert not correct(LEFT_OF_DOG, [cat(0)])


def test_position_is_compared_only_where_the_color_is_right():
    objects = [Item("dog"), Item("cat", 1, "red", ("left of", 0))]
    assert correct(objects, [cat(0, color="red"), dog(10)])
    assert verdict(objects, (), [cat(20, color="blue"), dog(10)]).reason == "expected red cat>=1, found 0"


def test_a_relation_must_refer_to_an_earlier_item():
    with pytest.raises(ValueError, match="earlier item"):
        verdict([Item("cat", relation=("left of", 0))], (), [cat()])


def test_spatial_relations():
    expected = {
        (-10, 0): {"left of"},
        (10, 0): {"right of"},
        (0, -10): {"above"},
        (0, 10): {"below"},
        (-10, -10): {"left of", "above"},
        (10, 10): {"right of", "below"},
        (10, 4): {"right of"},
        (0, 0): set(),
        (0.3, 0.3): set(),
    }
    assert {offset: spatial_relations(cat(*offset).box, cat().box) for offset in expected} == expected


def test_the_offset_is_shrunk_by_a_tenth_of_both_sizes_and_divided_by_the_unshrunk_length():
    # Sizes 2 + 2: the offset shrinks by 0.4. (0.79 - 0.4) / 0.79 = 0.494 is not enough, (0.81 - 0.4) / 0.81 = 0.506 is.
    assert spatial_relations(cat(0.79).box, cat().box) == set()
    assert spatial_relations(cat(0.81).box, cat().box) == {"right of"}
    # Sizes 2 + 4 and centers at a distance of 1.19 and 1.21.
    assert spatial_relations(cat(2.19, 1).box, cat(size=4).box) == set()
    assert spatial_relations(cat(2.21, 1).box, cat(size=4).box) == {"right of"}


box = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.1, 20)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@given(box, box)
def test_relations_are_symmetric(a, b):
    relations = spatial_relations(a, b)
    assert spatial_relations(b, a) == {OPPOSITE[name] for name in relations}
    assert len(relations) <= 2
    assert not any(OPPOSITE[name] in relations for name in relations)
