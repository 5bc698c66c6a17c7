"""The frozen reference model of a KL penalty."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unirl.backbones.base import Backbone
from unirl.backbones.lora import is_adapter
from unirl.backbones.precision import cast_frozen_weights
from unirl.distributed.fsdp2 import frozen_copy, is_sharded


class Reference:
    """The model before training.

    Where adapters are trained, it is the model with its adapters switched off, so that no weight is held twice.
    Otherwise it is a frozen copy, sharded as the model is. It is in no checkpoint: a resumed run makes it from the
    base model.

    Args:
        backbone: Built, and not trained yet.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._adapters = [module for module in backbone.modules() if is_adapter(module)]
        self._copy = None if self._adapters else frozen_copy(backbone)

    @contextmanager
    def active(self, backbone: Backbone) -> Iterator[Backbone]:
        """The reference, without gradient, within a `with` block.

        Args:
            backbone: The model in training.
        """
        with torch.no_grad():
            if self._copy is not None:
                if not is_sharded(backbone):
                    self._match(backbone, self._copy)
                yield self._copy
                return
            requires_grad = [(p, p.requires_grad) for p in backbone.parameters()]  # peft changes it when it switches
            self._enable_adapters(False)
            try:
                yield backbone
            finally:
                self._enable_adapters(True)
                for parameter, required in requires_grad:
                    parameter.requires_grad_(required)

    def _match(self, backbone: Backbone, copy: Backbone) -> None:
        """Move the copy to the device and the precision of the model."""
        target, current = next(backbone.parameters()), next(copy.parameters())
        if target.device != current.device:
            copy.to(target.device)
        mixed = torch.is_autocast_enabled(target.device.type)
        if not mixed and target.dtype != current.dtype:
            copy.to(target.dtype)
        cast_frozen_weights(copy, torch.get_autocast_dtype(target.device.type) if mixed else target.dtype)

    def _enable_adapters(self, enabled: bool) -> None:
        for module in self._adapters:
            module.enable_adapters(enabled)  # type: ignore[operator]
