"""Images that are given to a model, as tensors or as files, and its answers to questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.image_files import open_image
from unirl.types import Answers, AnswerSampling, Example, Images

GivenImages = Tensor | Sequence[str | Path]
"""Images (N, 3, H, W) in [0, 1], or paths of files of any size, which `Backbone.preprocess` reads."""


@dataclass(frozen=True)
class GivenAnswers:
    """Answers about given images.

    Args:
        text: One for each example.
        sampled: Those that were sampled; the others were chosen. None where there are none.
    """

    text: list[str]
    sampled: Answers | None


def select_given(images: GivenImages, rows: Sequence[int]) -> GivenImages:
    """Some of the given images.

    Args:
        images: All of them.
        rows: Which.

    Example:
        >>> select_given(["a.png", "b.png", "c.png"], [2, 0])
        ['c.png', 'a.png']
    """
    return images[list(rows)] if isinstance(images, Tensor) else [images[row] for row in rows]


def check_reads(backbone: Backbone, images: Tensor | Sequence[object] | None) -> None:
    """Refuse files of images that the backbone cannot read, before anything is computed.

    Args:
        backbone: The model, built or not.
        images: Images, paths of files, or None where there are none.

    Raises:
        UserError: they are files, and the backbone does not define `preprocess`.
    """
    if images is None or isinstance(images, Tensor) or not any(one is not None for one in images):
        return
    if type(backbone).preprocess is Backbone.preprocess:
        raise UserError(
            f"the judge asks about images of files, and {type(backbone).__name__} does not define `preprocess`, which "
            "reads them; leave such images out (the judge's option reference_images), or take another backbone"
        )


@torch.no_grad()
def answer_given(
    backbone: Backbone,
    examples: Sequence[Example],
    images: GivenImages,
    sampling: AnswerSampling,
    choose: bool = True,
) -> GivenAnswers:
    """Answer the first question of each example about its image.

    Args:
        backbone: The model.
        examples: With the questions.
        images: One for each.
        sampling: How questions are answered.
        choose: Answer a question that has choices by the most probable of them.

    Raises:
        UserError: a file is no image, or the backbone does not define `preprocess`.
    """
    device = next(backbone.parameters()).device
    encoded = _encode(backbone, images, device)
    chosen = {
        i: _choose(backbone, example, _select(encoded, [i]))
        for i, example in enumerate(examples)
        if choose and example.questions[0].choices
    }
    opened = [i for i in range(len(examples)) if i not in chosen]
    if not opened:
        return GivenAnswers([chosen[i] for i in range(len(examples))], None)
    asked = encoded if not chosen else _select(encoded, opened)
    sampled = backbone.sample_answers(asked, [examples[i].question for i in opened], sampling)
    text = chosen | dict(zip(opened, sampled.text, strict=True))
    return GivenAnswers([text[i] for i in range(len(examples))], sampled)


def _encode(backbone: Backbone, images: GivenImages, device: torch.device) -> Images:
    """The images as the model sees them. A file that is given several times is read and encoded once."""
    if isinstance(images, Tensor):
        return backbone.encode(images.to(device))
    order = {path: i for i, path in enumerate(dict.fromkeys(map(str, images)))}
    # One at a time: photographs are much larger than what the model reads.
    pixels = torch.cat([backbone.preprocess([open_image(path)]) for path in order])
    encoded = backbone.encode(pixels.to(device))
    return encoded if len(order) == len(images) else _select(encoded, [order[str(path)] for path in images])


def _select(images: Images, rows: Sequence[int]) -> Images:
    return images[torch.tensor(rows, device=images.codes.device)]


def _choose(backbone: Backbone, example: Example, image: Images) -> str:
    choices = example.questions[0].choices
    targets = backbone.tokenize_answers(choices)
    log_probs = backbone.answer_log_probs(image, [example.question] * len(choices), targets).float()
    return choices[int((log_probs * targets.mask).sum(1).argmax())]
