"""The trained model as a checkpoint of its own format."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unirl.adapters import merged


class ExportPretrained(Callback):
    """Writes `pretrained/` into the run's folder at the end of a fit, for `from_pretrained` and `unirl sample`."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.log_dir is not None:
            folder = Path(trainer.log_dir) / "pretrained"
            backbone: Any = pl_module.backbone
            with merged(backbone):
                backbone.save_pretrained(folder)
            print(f"The trained model: {folder}")
