"""The shipped tiny CLIP and features do what they are shipped for."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from unirl.backbones.checkpoints import locate
from unirl.metrics.diversity import GroupDiversity, TimmFeatures
from unirl.rewards.clip import CLIP
from unirl.types import Answers, Images
from unirl_shapes.pretrain.clip import SHIPPED_AT, retrieval, shows
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import clutter, near_miss, scene_for

FEATURES = "unirl_shapes:checkpoints/features"


def test_the_right_caption_is_found_among_32() -> None:
    folder = locate(SHIPPED_AT)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert retrieval(model, tokenizer, count=200) >= 0.9


def test_the_reward_prefers_pictures_that_show_what_was_asked_for() -> None:
    rng, examples = Random(0), ShapesPrompts().held_out(120)
    right = [scene_for(e, rng, rng.randrange(2)) for e in examples]
    wrong = [near_miss(e, rng, rng.randrange(2)) for e in examples]
    ids = torch.zeros(120, 1, dtype=torch.long)
    answers = Answers(ids, ids.bool(), [""] * 120)
    reward = CLIP(SHIPPED_AT, low=0.0, high=0.45)
    scores = [reward.score(examples, Images(ids, render_batch(scenes)), answers) for scenes in (right, wrong)]
    assert (scores[0] > scores[1]).float().mean() > 0.85
    assert 0.1 < scores[1].mean() < scores[0].mean() < 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_features_tell_different_pictures_apart(seed: int) -> None:
    features, rng = TimmFeatures(FEATURES), Random(seed)
    scenes = [clutter(rng, 4) for _ in range(16)]
    moved = [tuple(replace(t, cell=(t.cell + 1) % 16) for t in scene) for scene in scenes]
    metrics = []
    for pairs in (zip(scenes, moved, strict=True), zip(scenes, scenes[1:] + scenes[:1], strict=True)):
        metrics.append(GroupDiversity("cosine"))
        metrics[-1].update(features(render_batch([scene for pair in pairs for scene in pair])), 2)
    same_things, other_things = (metric.compute().item() for metric in metrics)
    assert same_things < 0.5 * other_things


def test_what_belongs_together_by_chance_is_known() -> None:
    examples = ShapesPrompts().held_out(60)
    assert all(shows(example, scene_for(example, Random(i), 2)) for i, example in enumerate(examples))
    assert not any(shows(example, ()) for example in examples)
