"""A run that is resumed from the end of an epoch has as many epochs as an uninterrupted one."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from unirl.callbacks import fault_tolerance_callbacks

STEPS = 2
"""Of an epoch."""


def trained(folder: Path, ckpt_path: Path | None = None, **limits: Any) -> Trainer:
    """A run with a checkpoint after each epoch."""
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*fault_tolerance_callbacks(), ModelCheckpoint(save_top_k=-1, dirpath=folder)],
        limit_train_batches=STEPS,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **limits,
    )
    trainer.fit(BoringModel(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", [{"max_epochs": 2}, {"max_epochs": 2, "max_steps": 4}, {"max_steps": 4}])
@pytest.mark.parametrize("then", [{"max_epochs": 4}, {"max_epochs": 4, "max_steps": 100}, {"max_steps": 8}])
def test_a_resumed_run_has_all_its_epochs(tmp_path: Path, first: dict[str, int], then: dict[str, int]) -> None:
    trained(tmp_path, **first)
    (end,) = tmp_path.glob("epoch=1-*.ckpt")
    resumed = trained(tmp_path, end, **then)
    assert resumed.global_step == 8
    assert resumed.current_epoch == 4
    again = trained(tmp_path, next(tmp_path.glob("epoch=3-*.ckpt")), **then)  # it is finished: nothing is trained
    assert again.global_step == 8
