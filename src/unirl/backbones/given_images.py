"""Images that are given to a model, as tensors or as files, and its answers to questions about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.errors import UserError
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
    pixels = images if isinstance(images, Tensor) else _read(backbone, images)
    encoded = backbone.encode(pixels.to(device))
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


def _read(backbone: Backbone, paths: Sequence[str | Path]) -> Tensor:
    """One at a time: photographs are much larger than what the model reads."""
    return torch.cat([backbone.preprocess([open_image(path)]) for path in paths])


def _select(images: Images, rows: Sequence[int]) -> Images:
    return images[torch.tensor(rows, device=images.codes.device)]


def _choose(backbone: Backbone, example: Example, image: Images) -> str:
    choices = example.questions[0].choices
    targets = backbone.tokenize_answers(choices)
    log_probs = backbone.answer_log_probs(image, [example.question] * len(choices), targets).float()
    return choices[int((log_probs * targets.mask).sum(1).argmax())]


def open_image(path: str | Path) -> Image.Image:
    """An image of a file in RGB, upright. Gray and palette become RGB; of alpha, the colors are kept.

    Args:
        path: The file.

    Raises:
        UserError: it is no image, or broken.
    """
    try:
        return decode_image(Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def check_image(path: str | Path) -> None:
    """Refuse a file that is no image. Its first bytes are read, so one that is cut off may pass.

    Args:
        path: The file.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(path):
            return
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{path} is no image; expected a PNG, JPEG or another format of Pillow") from None


def decode_image(data: bytes, path: str | Path) -> Image.Image:
    """As `open_image`, of the contents of a file.

    Args:
        data: The contents.
        path: The file, for the error message.

    Raises:
        UserError: it is no image, or broken.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # gray of 16 bits, which `convert` would cut at 255
                upright = upright.convert("I").point(lambda level: level / 256).convert("L")
            return upright.convert("RGB")
    except UnidentifiedImageError:
        what = "no image" if data else "an empty file"
        raise UserError(f"{path}: {what}; expected a PNG, JPEG or another format of Pillow") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: a broken image: {error}") from None
