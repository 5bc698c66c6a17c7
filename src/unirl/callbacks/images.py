"""Grids of images with captions, and the callback that logs them in validation."""

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
from typing_extensions import override

from unirl.types import Rollout

SIZE, MARGIN, FONT_SIZE, LINE_LENGTH = 168, 12, 14, 23
"""Pixels of an image, around an image and of the font; characters of a line."""
TEXT_COLOR, CORRECT_COLOR, WRONG_COLOR, FRAME_COLOR = "#222222", "#15803d", "#b91c1c", "#bbbbbb"


@dataclass(frozen=True)
class Caption:
    """The text below an image.

    Args:
        prompt: The prompt.
        answer: The model's answer about the image; empty if it was not asked.
        correct: The judge's verdict on the image; None without a judge.
    """

    prompt: str
    answer: str
    correct: bool | None = None


def image_grid(pixels: Tensor, captions: Sequence[Caption], columns: int = 4) -> Image.Image:
    """Images in rows with their captions. Frame and answer are green for a correct image and red for a wrong one.

    Args:
        pixels: The images.
        captions: One for each image.
        columns: Images in a row.

    Shapes:
        pixels (B, 3, H, W) in [0, 1].

    Example:
        >>> image_grid(torch.rand(2, 3, 8, 8), [Caption("a red circle", "a circle", True), Caption("a ring", "")]).size
        (372, 238)
    """
    font = ImageFont.load_default(FONT_SIZE)
    texts = [(_wrap(caption.prompt), _wrap(f"“{caption.answer}”" if caption.answer else "")) for caption in captions]
    lines, line_height = max(len(prompt) + len(answer) for prompt, answer in texts), FONT_SIZE + 3
    width, height = SIZE + MARGIN, SIZE + MARGIN + lines * line_height + MARGIN
    rows = -(-len(captions) // columns)
    grid = Image.new("RGB", (MARGIN + width * min(columns, len(captions)), MARGIN + height * rows), "white")
    canvas = ImageDraw.Draw(grid)
    for i, (image, caption, (prompt, answer)) in enumerate(zip(pixels, captions, texts, strict=True)):
        x, y = MARGIN + width * (i % columns), MARGIN + height * (i // columns)
        grid.paste(_to_pil(image), (x, y))
        verdict = CORRECT_COLOR if caption.correct else WRONG_COLOR
        frame, answer_color = (FRAME_COLOR, TEXT_COLOR) if caption.correct is None else (verdict, verdict)
        canvas.rectangle((x - 1, y - 1, x + SIZE, y + SIZE), outline=frame)
        colored = [(line, TEXT_COLOR) for line in prompt] + [(line, answer_color) for line in answer]
        for n, (line, color) in enumerate(colored):
            canvas.text((x, y + SIZE + 4 + n * line_height), line, fill=color, font=font)
    return grid


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_LENGTH)


def _to_pil(image: Tensor) -> Image.Image:
    array = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    resample = Image.Resampling.NEAREST if image.shape[-1] < SIZE else Image.Resampling.LANCZOS
    return Image.fromarray(array).resize((SIZE, SIZE), resample)


class LogImages(Callback):
    """Logs a grid of held-out images with prompts and answers in each validation.

    Written to `images/` in the folder of the run, and to TensorBoard as `val/images`. The prompts and the random
    numbers are the same every time, so that grids can be compared.

    Args:
        count: Images in the grid.
        columns: Images in a row.
        enabled: Whether there are grids.
    """

    def __init__(self, count: int = 12, columns: int = 4, enabled: bool = True) -> None:
        self.count, self.columns, self.enabled = count, columns, enabled
        self._log_dir: str | None = None

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_dir = trainer.log_dir  # collective, and a rank may have no batch

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        rollout: Rollout | None = (outputs or {}).get("rollout")
        if not self.enabled or batch_idx or rollout is None or not trainer.is_global_zero:
            return
        verdicts, count = rollout.score_parts.get("judge"), min(self.count, len(rollout.examples))
        correct = [None] * count if verdicts is None else [bool(verdict) for verdict in verdicts[:count].tolist()]
        texts = rollout.first_answers.text
        captions = [Caption(rollout.examples[i].prompt, texts[i], correct[i]) for i in range(count)]
        assert rollout.images.pixels is not None
        grid = image_grid(rollout.images.pixels[:count].cpu(), captions, self.columns)
        if self._log_dir is not None:
            folder = Path(self._log_dir) / "images"
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step-{trainer.global_step:06d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/images", np.asarray(grid), trainer.global_step, dataformats="HWC")
