"""What is asked of a backbone, whole or sharded, so that the two can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import seeded, with_pixels
from unirl.types import AnswerSampling, Images, ImageSampling


@dataclass(frozen=True)
class Task:
    """A saved backbone, and the questions to it. Every process has other prompts, and answers of another length.

    Args:
        folder: Where `model` is, and where results go.
        module: Of the backbone's class.
        source: That module's file, for modules that cannot be imported by name.
        name: Of the class in it.
        prompts: What to draw.
        questions: What to ask.
        answers: Given answers.
        sampling: How to draw.
        answering: How to answer.
    """

    folder: str
    module: str
    source: str
    name: str
    prompts: Sequence[str]
    questions: Sequence[str]
    answers: Sequence[str]
    sampling: ImageSampling
    answering: AnswerSampling

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Task":
        """Of what `dataclasses.asdict` made."""
        sampling, answering = ImageSampling(**values.pop("sampling")), AnswerSampling(**values.pop("answering"))
        return cls(**values, sampling=sampling, answering=answering)

    def prompts_of(self, rank: int) -> list[str]:
        """What this process draws."""
        return [*self.prompts[rank:], *self.prompts[:rank]]

    def drawn(self, backbone: Backbone, rank: int) -> Images:
        """What it draws."""
        return backbone.sample_images(self.prompts_of(rank), self.sampling, seeded(rank))


def said(backbone: Backbone, task: Task, rank: int) -> dict[str, Tensor]:
    """Drawings, answers and their scores, by the method that gives them; the first call is the model's first."""
    images = task.drawn(backbone, rank)
    assert images.log_probs is not None
    seen, questions = with_pixels(backbone, images), list(task.questions)
    shorter = replace(task.answering, max_tokens=max(1, task.answering.max_tokens - rank))
    answers = backbone.sample_answers(seen, questions, shorter, seeded(rank))
    assert answers.log_probs is not None
    with torch.no_grad():
        scored, _ = backbone.image_log_probs(task.prompts_of(rank), images, task.sampling)
        told = backbone.answer_log_probs(seen, questions, answers)
        pixels = backbone.decode(images)
    given = backbone.encode(pixels)
    return {
        "sample_images": torch.cat((images.codes, images.log_probs), 1),
        "image_log_probs": scored,
        "decode": pixels,
        "encode": given.codes.float(),
        "sample_answers": torch.cat((answers.ids, answers.log_probs * answers.mask), 1),
        "answer_log_probs": told,
    }


def learnt(backbone: Backbone, task: Task, rank: int) -> dict[str, Tensor]:
    """The gradient of drawing, answering and, where codes can be soft, drawing through answering; by parameter."""
    backbone.zero_grad()
    images, questions, prompts = task.drawn(backbone, rank), list(task.questions), task.prompts_of(rank)
    given = backbone.tokenize_answers(list(task.answers))
    log_probs, _ = backbone.image_log_probs(prompts, images, task.sampling)
    told = backbone.answer_log_probs(with_pixels(backbone, images), questions, given)
    loss = -log_probs.mean() - told.sum() / given.mask.sum()
    if backbone.supports_straight_through:  # as end-to-end SFT does it: two backward passes
        relaxed = backbone.straight_through(prompts, images, task.sampling, 1.0, None, seeded(rank))
        assert relaxed.soft is not None
        codes = relaxed.soft.detach().requires_grad_()
        told = backbone.answer_log_probs(replace(relaxed, soft=codes), questions, given)
        (slope,) = torch.autograd.grad(told.sum(), codes, retain_graph=True)
        loss = loss - told.mean() - (relaxed.soft * slope).sum()
    loss.backward()
    named = [(name, p.grad) for name, p in backbone.named_parameters() if p.grad is not None]
    return {name: (g.full_tensor() if hasattr(g, "full_tensor") else g).clone() for name, g in named}
