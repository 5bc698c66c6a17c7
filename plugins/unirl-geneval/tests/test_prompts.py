"""Held-out prompts that the judge can judge, none of which is of the benchmark."""

from collections import Counter

from unirl.prompts import GenEval, Prompts
from unirl.testing import PromptsConformance
from unirl_geneval.metadata import benchmark_metadata, find_unknown
from unirl_geneval.prompts import GenEvalCoco, _held_out, combination


class TestGenEvalCoco(PromptsConformance):
    def make(self) -> Prompts:
        return GenEvalCoco()

    def test_other_processes_give_the_same_examples(self) -> None:
        """As of `geneval`; a process takes seconds."""


def test_held_out_prompts_name_coco_classes_and_none_is_of_the_benchmark() -> None:
    held_out = GenEvalCoco().held_out(500)
    assert len({one.prompt for one in held_out}) == 500
    assert Counter(one.category for one in held_out).most_common()[0][1] == 100
    assert not [one for one in held_out if find_unknown(one) is not None]
    assert not {one.prompt for one in held_out} & {entry["prompt"] for entry in benchmark_metadata()}
    assert {one.prompt for one in held_out} != {one.prompt for one in GenEvalCoco().held_out(500, seed=1)}
    assert all(one.question and one.answer for one in held_out)
    assert GenEvalCoco({"colors": 1.0}).held_out(0) == GenEvalCoco({"single_object": 1.0}).held_out(3) == []


def test_a_category_is_used_up() -> None:
    """Of 80 classes three times there are 240 counts, of which the benchmark asks for 80."""
    assert 120 < len(list(_held_out("counting", 0))) <= 160


def test_the_same_in_other_words_is_of_the_benchmark() -> None:
    (entry, *_) = (one for one in benchmark_metadata() if one["tag"] == "position")
    target, subject = entry["include"]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    turned = [
        {"class": subject["class"], "count": 1},
        {"class": target["class"], "count": 1, "position": [opposite[subject["position"][0]], 0]},
    ]
    assert combination(entry | {"include": turned}) == combination(entry)
    assert combination(entry | {"include": [target, subject | {"position": ["above", 0]}]}) != combination(
        entry | {"include": [target, subject | {"position": ["below", 0]}]}
    )


def test_training_prompts_are_those_of_geneval() -> None:
    assert [GenEvalCoco().sample(0, i) for i in range(20)] == [GenEval().sample(0, i) for i in range(20)]
