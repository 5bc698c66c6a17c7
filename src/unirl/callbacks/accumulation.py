"""Gradients that are being added up belong to a checkpoint, too."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unirl.distributed.collectives import gather_object, local_item

KEY = "accumulated_gradients"


class KeepGradients(Callback):
    """Puts gradients into a checkpoint that is saved between two batches of `accumulate_grad_batches`.

    Otherwise a resumed run would step with those of the rest of the batches alone. Each process has gradients of its
    own, and the first one writes those of all: its machine needs room for them. After a step there are none.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.fit_loop.epoch_loop._should_accumulate():
            learning = pl_module.named_parameters()
            checkpoint[KEY] = gather_object({name: _share(p.grad).cpu() for name, p in learning if p.grad is not None})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._kept = local_item(checkpoint.get(KEY)) or {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, parameter in pl_module.named_parameters():
            if name in self._kept:
                parameter.grad = _like(self._kept[name], parameter)
        self._kept = {}


def _share(gradient: Tensor) -> Tensor:
    """Of a sharded gradient what this process has."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _like(share: Tensor, parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter, sharded if it is."""
    if not isinstance(parameter, DTensor):
        return share.to(parameter)
    mesh, placements = parameter.device_mesh, parameter.placements
    local = share.to(parameter.to_local())
    return DTensor.from_local(local, mesh, placements, shape=parameter.shape, stride=parameter.stride())
