"""What a model of this world can do: draw, see, and judge its own drawings."""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import torch

from unirl.backbones import Backbone
from unirl.backbones.checkpoints import locate, read_json
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.self_reward import SelfRewardAccuracy
from unirl.rewards.keyword import Keyword
from unirl.types import AnswerSampling, Example, ImageSampling
from unirl_shapes.examples import Split, draw_example
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import CATEGORIES

ANSWERING = AnswerSampling(max_tokens=6)
CHUNK = 120


@torch.no_grad()
def measure(
    backbone: Backbone, count: int, sampling: ImageSampling, seed: int = 0, split: Split = "held_out"
) -> dict[str, float]:
    """Drawing, seeing and critic figures on held-out prompts and renderings.

    Args:
        backbone: The model.
        count: Drawings, and renderings.
        sampling: How it draws.
        seed: Of prompts and sampling.
        split: "train" draws from training prompts instead, on which settings may be chosen.

    Shapes:
        every figure is in [0, 1]; "drawing" and the like are over all, "generation/colors" and the like by category.
    """
    drawing, critic, seeing = AccuracyByCategory(CATEGORIES), SelfRewardAccuracy(CATEGORIES), AccuracyByCategory(CATEGORIES)
    judge, reward = ShapesJudge(), Keyword(ordered=True)
    generator = torch.Generator().manual_seed(seed)
    examples = ShapesPrompts().held_out(count, seed) if split == "held_out" else _training(count, seed)
    for start in range(0, count, CHUNK):
        part = examples[start : start + CHUNK]
        images = backbone.sample_images([e.prompt for e in part], sampling, generator)
        pixels = backbone.decode(images)
        images, right = replace(images, pixels=pixels), judge.verdicts(part, pixels)
        answers = backbone.sample_answers(images, [e.question for e in part], ANSWERING)
        accepted = reward.accepts(part, reward.score(part, images, answers))
        drawing.update(right, _categories(part))
        critic.update(accepted, right, _categories(part))
    asked, pixels = judge.understanding_set(count, seed)
    for start in range(0, count, CHUNK):
        part = asked[start : start + CHUNK]
        images = backbone.encode(pixels[start : start + CHUNK])
        said = backbone.sample_answers(images, [e.question for e in part], ANSWERING).text
        seeing.update(torch.tensor([e.answer == s for e, s in zip(part, said, strict=True)]), _categories(part))
    figures: dict[str, float] = {}
    for kind, metric in (("drawing", drawing), ("seeing", seeing), ("critic", critic)):
        values = {name: value.item() for name, value in metric.compute().items()}
        figures |= {kind: values.pop("overall", math.nan)} | {f"{kind}/{name}": value for name, value in values.items()}
    return figures


def load(checkpoint: str) -> Backbone:
    """The world's model in a folder, of whichever kind.

    Args:
        checkpoint: A local folder, or `package:folder`.

    Raises:
        UserError: there is none.
    """
    kind = read_json(locate(checkpoint) / "config.json").get("model_type")
    return Janus.from_pretrained(checkpoint) if kind == "janus" else Showo.from_pretrained(checkpoint)


def _training(count: int, seed: int) -> list[Example]:
    """Training examples, category by turn."""
    rng = Random(f"training {seed}")
    return [draw_example(rng, "train", CATEGORIES[i % len(CATEGORIES)]) for i in range(count)]


def _categories(examples: Sequence[Example]) -> list[str]:
    return [example.category for example in examples]
