"""Gradients that are being added up belong to a checkpoint, too."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

KEY = "accumulated_gradients"


class KeepGradients(Callback):
    """Puts gradients into a checkpoint that is saved between two batches of `accumulate_grad_batches`.

    Otherwise a resumed run would step with those of the rest of the batches alone. Of several processes each has
    gradients of its own, and one writes: there, such a checkpoint is exact only where it is saved after a step.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.world_size == 1 and trainer.fit_loop.epoch_loop._should_accumulate():
            learning = pl_module.named_parameters()
            checkpoint[KEY] = {name: p.grad.cpu() for name, p in learning if p.grad is not None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._kept = checkpoint.get(KEY, {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, parameter in pl_module.named_parameters():
            if name in self._kept:
                parameter.grad = self._kept[name].to(parameter)
        self._kept = {}
