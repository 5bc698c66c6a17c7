"""Grids of images: their layout and colors, and where the callback writes them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageColor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unirl import UserError
from unirl.callbacks import Caption, LogImages, image_grid
from unirl.callbacks import images as callback_module
from unirl.callbacks.grids import CORRECT_COLOR, FRAME_COLOR, MARGIN, SIZE, WRONG_COLOR
from unirl.types import Answers, Example, Images, Rollout


def frame(grid: Image.Image, column: int) -> Any:
    """Color of an image's frame in the first row."""
    return grid.getpixel((MARGIN + (SIZE + MARGIN) * column - 1, MARGIN))


def test_frames_have_the_color_of_the_verdict() -> None:
    captions = [Caption("a red circle", "a circle", correct) for correct in (True, False, None)]
    grid = image_grid(torch.rand(3, 3, 8, 8), captions, columns=3)
    colors = [ImageColor.getrgb(color) for color in (CORRECT_COLOR, WRONG_COLOR, FRAME_COLOR)]
    assert [frame(grid, column) for column in range(3)] == colors


def test_an_answer_has_the_color_of_its_own_verdict() -> None:
    """Whatever the image shows: the answer to a wrong image may be right."""
    captions = [Caption("a ring", "a circle", not accepted, accepted=accepted) for accepted in (True, False)]
    grid = image_grid(torch.rand(2, 3, 8, 8), captions, columns=2)
    for column, (own, other) in enumerate([(CORRECT_COLOR, WRONG_COLOR), (WRONG_COLOR, CORRECT_COLOR)]):
        left, top = MARGIN + (SIZE + MARGIN) * column, MARGIN + SIZE + 2
        below = {color for _, color in grid.crop((left, top, left + SIZE, grid.height)).getcolors(10_000)}
        assert ImageColor.getrgb(own) in below
        assert ImageColor.getrgb(other) not in below


def make_rollout(judge: torch.Tensor | None) -> Rollout:
    answers = Answers(torch.zeros(6, 1), torch.ones(6, 1), ["a circle"] * 6)
    images = Images(torch.zeros(6, 4, dtype=torch.long), torch.rand(6, 3, 8, 8))
    parts = {} if judge is None else {"judge": judge}
    return Rollout([Example("a ring", "", "", "c")] * 6, images, answers, torch.zeros(6), parts, torch.zeros(6) > 0, 1)


def test_the_first_batch_of_a_validation_is_logged(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name=None, version="")
    trainer: Any = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True, global_step=3, loggers=[logger])
    callback = LogImages(count=4, columns=2)
    module: Any = None
    callback.on_validation_start(trainer, module)
    for batch_idx in (0, 1):
        outputs = {"rollout": make_rollout(torch.tensor([1, 0, 1, 0, 1, 0]))}
        callback.on_validation_batch_end(trainer, module, outputs, None, batch_idx)
    logger.finalize("success")
    (path,) = (tmp_path / "images").iterdir()
    assert path.name == "step-000003.png"
    grid = Image.open(path)
    assert grid.width == MARGIN + 2 * (SIZE + MARGIN)
    assert [frame(grid, column) for column in range(2)] == [
        ImageColor.getrgb(CORRECT_COLOR),
        ImageColor.getrgb(WRONG_COLOR),
    ]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Images("val/images")] == [3]


def test_without_a_judge_frames_are_gray(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True, global_step=0, loggers=[])
    module: Any = None
    callback = LogImages()
    callback.on_validation_start(trainer, module)
    callback.on_validation_batch_end(trainer, module, {"rollout": make_rollout(None)}, None, 0)
    assert frame(Image.open(tmp_path / "images" / "step-000000.png"), 0) == ImageColor.getrgb(FRAME_COLOR)


def test_a_grid_of_no_images_is_refused() -> None:
    for settings in ({"count": 0}, {"columns": 0}, {"count": -3}):
        with pytest.raises(UserError, match=f"LogImages: {next(iter(settings))}"):
            LogImages(**settings)


def test_captions_have_the_answer_to_the_first_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[Caption] = []

    def record(pixels: torch.Tensor, given: list[Caption], columns: int, max_side: int) -> Image.Image:
        captions.extend(given)
        return Image.new("L", (1, 1))

    monkeypatch.setattr(callback_module, "image_grid", record)
    trainer: Any = SimpleNamespace(log_dir=None, is_global_zero=True, global_step=0, loggers=[])
    rollout, texts = make_rollout(None), [f"answer {row}" for row in range(12)]
    rollout = replace(rollout, answers=Answers(torch.zeros(12, 1), torch.ones(12, 1), texts))
    module: Any = None
    LogImages(count=3).on_validation_batch_end(trainer, module, {"rollout": rollout}, None, 0)
    assert [caption.answer for caption in captions] == ["answer 0", "answer 2", "answer 4"]
