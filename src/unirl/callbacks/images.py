"""Pictures with words under them, as one image."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unirl.types import Rollout

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


def image_grid(pixels: Tensor, captions: Sequence[Caption], columns: int = 4) -> Image.Image:
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


class LogImages(Callback):
    """Writes a grid of held-out drawings, with prompts and answers, as PNG and to TensorBoard.

    The prompts and the random numbers are the same every time, so that grids can be compared.

    Args:
        count: Pictures in the grid.
        columns: Pictures in a row.
    """

    def __init__(self, count: int = 12, columns: int = 4) -> None:
        self.count, self.columns = count, columns

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        rollout: Rollout | None = (outputs or {}).get("rollout")
        if batch_idx or rollout is None:
            return
        log_dir = trainer.log_dir  # all processes must ask
        if not trainer.is_global_zero:
            return
        judged = rollout.score_parts.get("judge")
        shown = range(min(self.count, len(rollout.examples)))
        captions = [
            Caption(rollout.examples[i].prompt, rollout.answers.text[i], None if judged is None else bool(judged[i]))
            for i in shown
        ]
        assert rollout.images.pixels is not None
        grid = image_grid(rollout.images.pixels[: len(shown)], captions, self.columns)
        if log_dir is not None:
            folder = Path(log_dir) / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step-{trainer.global_step:06d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("held_out", np.asarray(grid), trainer.global_step, dataformats="HWC")
