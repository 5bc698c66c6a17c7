"""The shipped tiny CLIP and timm model."""

from dataclasses import replace
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from unirl import Answers, Images
from unirl.backbones import locate
from unirl.metrics import GroupDiversity, TimmFeatures
from unirl.rewards import CLIP
from unirl_shapes.pretrain.clip import CHECKPOINT, is_true_caption, retrieval
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.render import render_batch
from unirl_shapes.scenes import near_miss, random_scene, scene_for

FEATURES = "unirl_shapes:checkpoints/features"


def test_the_true_caption_is_retrieved_among_32() -> None:
    folder = locate(CHECKPOINT)
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert retrieval(model, tokenizer, count=200) >= 0.9


def test_the_reward_is_higher_for_correct_images() -> None:
    rng, examples = Random(0), ShapesPrompts().held_out(120)
    correct = [scene_for(e, rng, rng.randrange(2)) for e in examples]
    wrong = [near_miss(e, rng, rng.randrange(2)) for e in examples]
    ids = torch.zeros(120, 1, dtype=torch.long)
    answers = Answers(ids, ids.bool(), [""] * 120)
    reward = CLIP(CHECKPOINT, low=0.0, high=0.45)
    scores = [reward.score(examples, Images(ids, render_batch(scenes)), answers) for scenes in (correct, wrong)]
    assert (scores[0] > scores[1]).float().mean() > 0.85
    assert 0.1 < scores[1].mean() < scores[0].mean() < 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_features_depend_on_objects_more_than_on_cells(seed: int) -> None:
    features, rng = TimmFeatures(FEATURES), Random(seed)
    scenes = [random_scene(rng, 4) for _ in range(16)]
    moved = [tuple(replace(t, cell=(t.cell + 1) % 16) for t in scene) for scene in scenes]
    metrics = []
    for pairs in (zip(scenes, moved, strict=True), zip(scenes, scenes[1:] + scenes[:1], strict=True)):
        metrics.append(GroupDiversity("cosine"))
        metrics[-1].update(features(render_batch([scene for pair in pairs for scene in pair])), 2)
    same_objects, other_objects = (metric.compute().item() for metric in metrics)
    assert same_objects < 0.5 * other_objects


def test_true_captions() -> None:
    examples = ShapesPrompts().held_out(60)
    assert all(is_true_caption(example, scene_for(example, Random(i), 2)) for i, example in enumerate(examples))
    assert not any(is_true_caption(example, ()) for example in examples)
