"""Pictures with words under them, as one image."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIDE, MARGIN, TEXT = 168, 12, 14
INK, GOOD, BAD = "#222222", "#15803d", "#b91c1c"


@dataclass(frozen=True)
class Caption:
    """The words under a picture.

    Args:
        prompt: What was asked for.
        answer: What the model says about its drawing; empty where it was not asked.
        right: The judge's verdict; None where nobody judged.
    """

    prompt: str
    answer: str
    right: bool | None = None


def draw_grid(pixels: Tensor, captions: Sequence[Caption], columns: int = 4) -> Image.Image:
    """Pictures in rows, each with its prompt and its answer; the answer is green under a right picture, else red.

    Args:
        pixels: The pictures.
        captions: One for each.
        columns: Pictures in a row.

    Shapes:
        pixels (B, 3, H, W) in [0, 1].
    """
    font = ImageFont.load_default(TEXT)
    texts = [(textwrap.wrap(c.prompt, 23), textwrap.wrap(f"“{c.answer}”" if c.answer else "", 23)) for c in captions]
    lines = max(len(prompt) + len(answer) for prompt, answer in texts)
    width, height = SIDE + MARGIN, SIDE + MARGIN + lines * (TEXT + 3) + MARGIN
    rows = -(-len(captions) // columns)
    sheet = Image.new("RGB", (MARGIN + width * min(columns, len(captions)), MARGIN + height * rows), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, caption, (prompt, answer)) in enumerate(zip(pixels, captions, texts, strict=True)):
        x, y = MARGIN + width * (i % columns), MARGIN + height * (i // columns)
        sheet.paste(_enlarged(picture), (x, y))
        color = INK if caption.right is None else GOOD if caption.right else BAD
        pen.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline="#bbbbbb" if caption.right is None else color)
        for n, (line, ink) in enumerate([(t, INK) for t in prompt] + [(t, color) for t in answer]):
            pen.text((x, y + SIDE + 4 + n * (TEXT + 3)), line, fill=ink, font=font)
    return sheet


def _enlarged(picture: Tensor) -> Image.Image:
    array = (picture.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    resample = Image.Resampling.NEAREST if picture.shape[-1] < SIDE else Image.Resampling.LANCZOS
    return Image.fromarray(array).resize((SIDE, SIDE), resample)
