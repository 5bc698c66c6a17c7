"""Measures generation, understanding and self-reward of a model of the shapes world."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from unirl import Example, ImageSampling, sample
from unirl.backbones import Backbone, locate, read_json
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.metrics import AccuracyByCategory, SelfRewardAccuracy
from unirl.rewards import Keyword
from unirl_shapes.examples import held_out_examples, train_examples
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.vocabulary import CATEGORIES

BATCH_SIZE = 120


@torch.no_grad()
def measure(
    backbone: Backbone,
    count: int,
    sampling: ImageSampling | None = None,
    seed: int = 0,
    split: Literal["held_out", "train"] = "held_out",
    best_of: int = 1,
    categories: Sequence[str] = CATEGORIES,
) -> dict[str, float]:
    """Measure a model on held-out prompts, and on held-out questions about rendered images.

    Args:
        backbone: The model.
        count: Number of generated images, and of rendered ones.
        sampling: How images are generated. Defaults to `backbone.sampling_config`, which also says how questions are
            answered.
        seed: Seed of prompts and sampling.
        split: "train" generates from training prompts and asks about them, on which settings may be chosen.
        best_of: Images of each prompt, of which the model's own probability of the correct answer picks one, as in
            `unirl.sample`.
        categories: What is measured: the six of GenEval by default, "complex", or some of them.

    Raises:
        UserError: a category is unknown.

    Returns:
        Accuracies in [0, 1]: "generation", "understanding" and "self_reward" overall, and each by category, such as
        "generation/colors".
    """
    judge, reward = ShapesJudge(categories=categories, split=split), Keyword(ordered=True)
    generation, understanding = AccuracyByCategory(categories), AccuracyByCategory(categories)
    self_reward = SelfRewardAccuracy(categories)
    generator = torch.Generator().manual_seed(seed)
    examples = (held_out_examples if split == "held_out" else train_examples)(categories, count, seed)
    answer_sampling = replace(backbone.sampling_config.answer_sampling, temperature=0.0)
    for start in range(0, count, BATCH_SIZE):
        batch = examples[start : start + BATCH_SIZE]
        samples = sample(backbone, batch, best_of, sampling, answer_sampling, generator)
        assert samples.images.pixels is not None
        assert samples.answers is not None
        correct = judge.verdicts(batch, samples.images.pixels)
        accepted = reward.accepts(batch, reward.score(batch, samples.images, samples.answers))
        generation.update(correct, _categories(batch))
        self_reward.update(accepted, correct, _categories(batch))
    questions, pixels = judge.understanding_set(count, seed)
    for start in range(0, count, BATCH_SIZE):
        batch = questions[start : start + BATCH_SIZE]
        images = backbone.encode(pixels[start : start + BATCH_SIZE])
        texts = backbone.sample_answers(images, [e.question for e in batch], answer_sampling).text
        correct = torch.tensor([e.answer == text for e, text in zip(batch, texts, strict=True)])
        understanding.update(correct, _categories(batch))
    values: dict[str, float] = {}
    metrics = {"generation": generation, "understanding": understanding, "self_reward": self_reward}
    for task, metric in metrics.items():
        by_category = {name: value.item() for name, value in metric.compute().items()}
        values[task] = by_category.pop("overall", math.nan)
        values |= {f"{task}/{name}": value for name, value in by_category.items()}
    return values


def load(checkpoint: str) -> Backbone:
    """Load a model of the shapes world: a Show-o or a Janus.

    Args:
        checkpoint: A local folder, or `package:folder`.

    Raises:
        UserError: there is none.
    """
    model_type = read_json(locate(checkpoint) / "config.json").get("model_type")
    return Janus.from_pretrained(checkpoint) if model_type == "janus" else Showo.from_pretrained(checkpoint)


def _categories(examples: Sequence[Example]) -> list[str]:
    return [example.category for example in examples]
