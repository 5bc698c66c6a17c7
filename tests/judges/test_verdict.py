import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirl.judges import Detection, best_by_class, spatial_relations, verdict
from unirl.types import Item

GOLDEN = Path(__file__).parents[2].parent / "shared/reference/geneval/verdicts.json"
"""What GenEval's own code said about 400 sets of detections."""


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


def test_of_equally_confident_detections_the_later_comes_first():
    colors = ["red", "blue", "green"]
    found = best_by_class([cat(i, color=color) for i, color in enumerate(colors)])["cat"]
    assert [one.color for one in found] == ["green", "blue", "red"]
    assert correct([Item("cat", 1, "green")], [cat(i, color=color) for i, color in enumerate(colors)])


def test_confidences_are_compared_in_float32():
    """0.30000001 is 0.3 in float32; as a double it would count."""
    assert not correct([Item("cat")], [cat(confidence=0.30000001)])
    assert correct([Item("cat")], [cat(confidence=0.3000001)])
    assert not correct([Item("cat", 2)], [cat(), cat(confidence=0.9 + 1e-9)], counting=True)


def test_colors_are_classified_only_where_they_are_asked_for():
    asked = []

    def classify(detections):
        asked.append([one.box[0] for one in detections])
        return ["red"] * len(detections)

    detections = [cat(0), cat(1, confidence=0.8), dog(2), cat(3, confidence=0.5)]
    objects = [Item("cat", 2, "red"), Item("dog"), Item("cat", 4, "red")]
    assert not correct(objects, detections, classify_colors=classify)
    assert asked == [[0, 1]]


def test_an_empty_group_stands_in_every_relation():
    objects = [Item("dog", 0), Item("cat", relation=("left of", 0)), Item("cat", 0, "red", ("above", 1))]
    assert correct(objects, [cat()])


def test_what_was_found_is_said():
    colored = [cat(0, color="white"), cat(1, color="red"), cat(2, color="white"), cat(3, color="teal")]
    result = verdict([Item("cat", 4, "red")], (), colored)
    assert result.reason == "expected red cat>=4, found 1 red; and 1 red, 2 white, 1 teal"
    place = [Item("dog"), Item("cat", relation=("left of", 0))]
    assert verdict(place, (), [cat(0, 0), dog(0, 0)]).reason == "expected cat left of target, found  target"
    assert verdict(place, (), [cat(9, 9), dog(0, 0)]).reason.endswith("found below and right of target")


def test_verdicts_are_genevals():
    """Every verdict, its reason, and which detections are considered in which order."""
    if not GOLDEN.is_file():
        pytest.skip(f"GenEval's verdicts are not at {GOLDEN}")
    cases, wrong = json.loads(GOLDEN.read_text()), []
    for case in cases:
        metadata, counting = case["metadata"], case["metadata"]["tag"] == "counting"
        objects, exclude = (
            [
                Item(one["class"], one["count"], one.get("color"), tuple(one.get("position", ())) or None)
                for one in metadata.get(name, ())
            ]
            for name in ("include", "exclude")
        )
        detections = {
            name: [Detection(name, tuple(one["box"]), one["score"], one["color"]) for one in same_class]
            for name, same_class in case["detections"].items()
        }
        every = [one for same_class in detections.values() for one in same_class]
        found = verdict(objects, exclude, every, counting=counting)
        best = best_by_class(every, 0.9 if counting else 0.3)
        kept = {
            name: [[id(one) for one in detections[name]].index(id(one)) for one in same_class]
            for name, same_class in best.items()
        }
        reasons = [case["reason"], *case.get("reason_also", ())]
        if found.correct != case["correct"] or found.reason not in reasons or kept != case["kept"]:
            wrong.append(case["id"])
    assert len(cases) == 400
    assert not wrong


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
    assert result.reason == "expected red dog>=1, found 0 red; and 1 blue\nno target for cat to be left of"
    assert not correct(LEFT_OF_DOG, [cat(0)])


def test_position_is_compared_only_where_the_color_is_right():
    objects = [Item("dog"), Item("cat", 1, "red", ("left of", 0))]
    assert correct(objects, [cat(0, color="red"), dog(10)])
    result = verdict(objects, (), [cat(20, color="blue"), dog(10)])
    assert result.reason == "expected red cat>=1, found 0 red; and 1 blue"


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
