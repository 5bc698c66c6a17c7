"""Grids of images with captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from unirl.callbacks.captions import LINE_HEIGHT, draw_line, wrap

SIZE, MARGIN = 168, 12
"""Pixels of an image and around it."""
TEXT_COLOR, CORRECT_COLOR, WRONG_COLOR, FRAME_COLOR = "#222222", "#15803d", "#b91c1c", "#bbbbbb"
QUESTION_COLOR = "#666666"
MAX_SIDE = 4096
"""Largest width and height of a grid that is logged, in pixels."""


@dataclass(frozen=True)
class Caption:
    """The text below an image, in any script.

    Args:
        prompt: The prompt.
        answer: The model's answer about the image; empty if it was not asked. An empty one to a question is shown.
        correct: The judge's verdict on the image, the color of its frame; None without a judge.
        question: The question; empty to leave it out.
        expected: The expected answer; empty to leave it out.
        accepted: The rewards' verdict on the answer, its color; None where there is none.
    """

    prompt: str
    answer: str
    correct: bool | None = None
    question: str = ""
    expected: str = ""
    accepted: bool | None = None


def image_grid(
    pixels: Tensor, captions: Sequence[Caption], columns: int = 4, max_side: int | None = None
) -> Image.Image:
    """Images in rows with their captions. The frame of a correct image and an accepted answer are green, others red.

    A row is as high as its longest caption; long texts are cut.

    Args:
        pixels: The images.
        captions: One for each image.
        columns: Images in a row.
        max_side: Largest width and height in pixels. There are as many columns and whole rows as fit, at least one, and
            a last line says how many images are not shown. None shows all images.

    Shapes:
        pixels (B, 3, H, W) in [0, 1].

    Example:
        >>> image_grid(torch.rand(2, 3, 8, 8), [Caption("a red circle", "a circle", True), Caption("a ring", "")]).size
        (372, 238)
    """
    if max_side is not None:
        columns = max(1, min(columns, (max_side - MARGIN) // (SIZE + MARGIN)))
    lines, rows, heights = _layout(captions, columns, max_side)
    width = MARGIN + (SIZE + MARGIN) * min(columns, len(captions))
    note = _note(len(captions) - sum(map(len, rows)), width)
    grid = Image.new("RGB", (width, MARGIN + sum(heights) + len(note) * LINE_HEIGHT), "white")
    canvas, y = ImageDraw.Draw(grid), MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, i in enumerate(row):
            x = MARGIN + (SIZE + MARGIN) * column
            grid.paste(_resized(pixels[i]), (x, y))
            canvas.rectangle((x - 1, y - 1, x + SIZE, y + SIZE), outline=_color(captions[i].correct, FRAME_COLOR))
            for n, (line, color) in enumerate(lines[i]):
                draw_line(canvas, x, y + SIZE + 4 + n * LINE_HEIGHT, line, color)
        y += height
    for n, line in enumerate(note):
        draw_line(canvas, MARGIN, y - MARGIN + n * LINE_HEIGHT, line, TEXT_COLOR)
    return grid


_Lines = list[tuple[str, str]]


def _layout(
    captions: Sequence[Caption], columns: int, max_height: int | None
) -> tuple[list[_Lines], list[range], list[int]]:
    """The lines of the captions, the images of each row that fits, and the heights of the rows."""
    lines: list[_Lines] = []
    rows: list[range] = []
    heights: list[int] = []
    for start in range(0, len(captions), columns):
        row = range(start, min(start + columns, len(captions)))
        lines += [list(_lines(captions[i])) for i in row]
        height = SIZE + MARGIN + max(len(lines[i]) for i in row) * LINE_HEIGHT + MARGIN
        is_last = row.stop == len(captions)
        note_height = 0 if is_last else LINE_HEIGHT * _NOTE_LINES
        if rows and max_height is not None and MARGIN + sum(heights) + height + note_height > max_height:
            break
        rows.append(row)
        heights.append(height)
    return lines, rows, heights


_NOTE_LINES = 2
"""Most lines of the note below a grid of one column."""


def _note(count: int, width: int) -> list[str]:
    text = f"{count} more {'image is' if count == 1 else 'images are'} not shown" if count else ""
    return wrap(text, width - 2 * MARGIN, _NOTE_LINES)


def _lines(caption: Caption) -> Iterator[tuple[str, str]]:
    """Lines of a caption with their colors."""
    texts = [
        (caption.prompt, TEXT_COLOR),
        (caption.question, QUESTION_COLOR),
        (f"“{caption.answer}”" if caption.answer or caption.question else "", _color(caption.accepted, TEXT_COLOR)),
        (f"expected “{caption.expected}”" if caption.expected else "", QUESTION_COLOR),
    ]
    return ((line, color) for text, color in texts for line in wrap(text, SIZE))


def _color(verdict: bool | None, default: str) -> str:
    if verdict is None:
        return default
    return CORRECT_COLOR if verdict else WRONG_COLOR


def to_pil(image: Tensor) -> Image.Image:
    """An image of its own size.

    Args:
        image: Values below 0 or above 1 are cut off.

    Shapes:
        image (3, H, W) in [0, 1].

    Example:
        >>> to_pil(torch.ones(3, 2, 4)).size
        (4, 2)
    """
    array = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)


def _resized(image: Tensor) -> Image.Image:
    resample = Image.Resampling.NEAREST if image.shape[-1] < SIZE else Image.Resampling.LANCZOS
    return to_pil(image).resize((SIZE, SIZE), resample)
