"""Export of the trained model at the end of a fit."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from unirl.backbones.lora import merged
from unirl.distributed.fsdp2 import gather_full_model


class ExportPretrained(Callback):
    """Writes the trained model to `pretrained/` in the folder of the run, for `from_pretrained` and `unirl sample`.

    LoRA adapters are merged into the weights. The sampling settings of validation are written beside them, so that the
    model is sampled as it was measured.

    Args:
        enabled: Whether it is written. `unirl export` writes the same from a checkpoint.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.enabled:
            return
        log_dir = trainer.log_dir  # collective
        if log_dir is None:
            return
        folder = Path(log_dir) / "pretrained"
        backbone: Any = gather_full_model(pl_module.backbone, trainer.is_global_zero)  # type: ignore[arg-type]
        if backbone is not None:
            backbone.sampling_config = getattr(pl_module, "sampling_config", None) or backbone.sampling_config
            with merged(backbone):
                backbone.save_pretrained(folder)
            backbone.sampling_config.save_pretrained(folder)  # a plugin may leave it out
            print(f"The trained model: {folder}")
