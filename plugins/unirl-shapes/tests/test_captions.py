"""Careless captions: the picture is wrong for its caption, by one fact, and right for what it was made from."""

from random import Random

import pytest

from unirl_shapes.captions import CONFUSED, carelessly
from unirl_shapes.examples import all_examples
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import scene_for
from unirl_shapes.vocabulary import CATEGORIES, COLORS


@pytest.mark.parametrize("category", CATEGORIES)
def test_what_a_careless_caption_shows_is_wrong_for_it(category: str) -> None:
    rng = Random(0)
    examples = rng.sample(all_examples(category), min(40, len(all_examples(category))))
    scenes = [scene_for(carelessly(example, rng), rng) for example in examples]
    right = ShapesJudge().verdicts(examples, render_batch(scenes))
    assert right.all() if category == "single_object" else not right.any()


def test_confused_colors_are_confused_both_ways() -> None:
    assert set(CONFUSED) == set(COLORS)
    assert all(CONFUSED[CONFUSED[color]] == color != CONFUSED[color] for color in COLORS)
