"""Shows what the model draws, at every validation."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from unirl.callbacks.grid import Caption, draw_grid
from unirl.types import Rollout


class Pictures(Callback):
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
        grid = draw_grid(rollout.images.pixels[: len(shown)], captions, self.columns)
        if log_dir is not None:
            folder = Path(log_dir) / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step-{trainer.global_step:06d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("held_out", np.asarray(grid), trainer.global_step, dataformats="HWC")
