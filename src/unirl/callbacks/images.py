"""The callback that logs grids of held-out images in validation."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from typing_extensions import override

from unirl.callbacks.grids import MAX_SIDE, Caption, image_grid
from unirl.errors import check_minimum
from unirl.types import Rollout


class LogImages(Callback):
    """Logs a grid of held-out images with prompts, questions and answers in each validation.

    Written to `images/` in the folder of the run, and to TensorBoard as `val/images`. The prompts and the random
    numbers are the same every time, so that grids can be compared.

    A grid is at most 4096 pixels wide and high: it has as many columns and rows as fit, and says how many images are
    not shown.

    Args:
        count: Images in the grid, at most those of the first batch.
        columns: Images in a row.
        enabled: Whether there are grids.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(self, count: int = 12, columns: int = 4, enabled: bool = True) -> None:
        check_minimum(1, "LogImages", count=count, columns=columns)
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
        rows = zip(rollout.examples, rollout.first_answers.text, correct, rollout.accepted.tolist(), strict=False)
        captions = [
            Caption(example.prompt, text, verdict, example.question, example.answer, accepted)
            for example, text, verdict, accepted in rows
        ]
        assert rollout.images.pixels is not None
        grid = image_grid(rollout.images.pixels[:count].cpu(), captions, self.columns, MAX_SIDE)
        if self._log_dir is not None:
            folder = Path(self._log_dir) / "images"
            folder.mkdir(parents=True, exist_ok=True)
            grid.save(folder / f"step-{trainer.global_step:06d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val/images", np.asarray(grid), trainer.global_step, dataformats="HWC")
