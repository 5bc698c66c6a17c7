"""The trained model as a checkpoint of its own format."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from unirl.backbones.lora import merged
from unirl.distributed.fsdp2 import gather_full_model


class ExportPretrained(Callback):
    """Writes `pretrained/` into the run's folder at the end of a fit, for `from_pretrained` and `unirl sample`."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = trainer.log_dir  # all processes must ask
        if folder is None:
            return
        backbone: Any = gather_full_model(pl_module.backbone, trainer.is_global_zero)  # type: ignore[arg-type]
        if backbone is not None:
            with merged(backbone):
                backbone.save_pretrained(Path(folder) / "pretrained")
            print(f"The trained model: {Path(folder) / 'pretrained'}")
