"""Noisy captions: the image is wrong for its caption, in one fact."""

from random import Random

import pytest

from unirl_shapes.captions import CONFUSED, change_fact
from unirl_shapes.examples import all_examples
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import scene_for
from unirl_shapes.vocabulary import CATEGORIES, COLORS


@pytest.mark.parametrize("category", CATEGORIES)
def test_images_with_a_changed_fact_are_wrong(category: str) -> None:
    rng = Random(0)
    examples = rng.sample(all_examples(category), min(40, len(all_examples(category))))
    scenes = [scene_for(change_fact(example, rng), rng) for example in examples]
    correct = ShapesJudge().verdicts(examples, render_batch(scenes))
    assert correct.all() if category == "single_object" else not correct.any()


def test_confusion_of_colors_is_symmetric() -> None:
    assert set(CONFUSED) == set(COLORS)
    assert all(CONFUSED[CONFUSED[color]] == color != CONFUSED[color] for color in COLORS)
