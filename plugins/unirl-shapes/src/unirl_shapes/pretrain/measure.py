"""What a model of this world can do: draw, see, and judge its own drawings."""

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.types import AnswerSampling, Images, ImageSampling
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import CATEGORIES

SAMPLING = ImageSampling(steps=8)


@torch.no_grad()
def measure(backbone: Backbone, count: int, sampling: ImageSampling = SAMPLING, seed: int = 0) -> dict[str, float]:
    """Drawing and seeing accuracy on held-out prompts and renderings, and the fairness of the model as a critic.

    Args:
        backbone: The model.
        count: Drawings, and renderings.
        sampling: How it draws.
        seed: Of prompts and sampling.

    Shapes:
        every figure is in [0, 1].
    """
    judge, answering = ShapesJudge(), AnswerSampling(max_tokens=6)
    examples = ShapesPrompts().held_out(count, seed)
    prompts, questions = [e.prompt for e in examples], [e.question for e in examples]
    generator = torch.Generator().manual_seed(seed)
    images = backbone.sample_images(prompts, sampling, generator)
    right = judge.verdicts(examples, backbone.decode(images))
    said = backbone.sample_answers(images, questions, answering).text
    accepted = torch.tensor(
        [e.answer in (s, s.split(" ")[0]) or _among(e, s) for e, s in zip(examples, said, strict=True)]
    )
    figures = {"drawing": right.float().mean().item(), "critic": balanced_accuracy(accepted, right)}
    for category in CATEGORIES:
        rows = torch.tensor([e.category == category for e in examples])
        figures[f"drawing/{category}"] = right[rows].float().mean().item()
        figures[f"critic/{category}"] = balanced_accuracy(accepted[rows], right[rows])
    return figures | seeing(backbone, judge, count, seed)


def seeing(backbone: Backbone, judge: ShapesJudge, count: int, seed: int) -> dict[str, float]:
    """Share of right answers about held-out renderings, over all and by category."""
    examples, pixels = judge.exam(count, seed)
    images = Images(backbone.encode(pixels).codes)
    said = backbone.sample_answers(images, [e.question for e in examples], AnswerSampling(max_tokens=6)).text
    right = torch.tensor([e.answer == s for e, s in zip(examples, said, strict=True)])
    figures = {"seeing": right.float().mean().item()}
    for category in CATEGORIES:
        rows = torch.tensor([e.category == category for e in examples])
        figures[f"seeing/{category}"] = right[rows].float().mean().item()
    return figures


def _among(example, said: str) -> bool:
    """Where two relations hold at once, either is right."""
    return example.category == "position" and example.answer in said.split()


def balanced_accuracy(accepted: Tensor, right: Tensor) -> float:
    """Mean of the share of right drawings accepted and the share of wrong ones refused; nan where one is missing.

    Shapes:
        both (B,) bool.
    """
    return ((accepted[right].float().mean() + (~accepted[~right]).float().mean()) / 2).item()
