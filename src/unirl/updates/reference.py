"""The model that a policy must not drift away from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unirl.backbones.base import Backbone
from unirl.backbones.lora import is_adapter
from unirl.distributed.fsdp2 import frozen_copy, unsharded


class Reference:
    """The policy as it was before training.

    Where adapters are trained (peft), they are switched off and no weight is held twice; otherwise it is a frozen copy.
    Nobody's submodule: it is in no checkpoint, for a resumed run builds it from the base again.

    Args:
        backbone: Built, and not yet trained.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._adapters = [module for module in backbone.modules() if is_adapter(module)]
        self._copy = None if self._adapters else frozen_copy(backbone)

    @contextmanager
    def active(self, backbone: Backbone) -> Iterator[Backbone]:
        """The reference, without gradient, for the time of a `with` block.

        Args:
            backbone: The one in training.
        """
        with torch.no_grad():
            if self._copy is not None:
                self._follow(backbone, self._copy)
                with unsharded(self._copy):
                    yield self._copy
                return
            trained = [(p, p.requires_grad) for p in backbone.parameters()]  # peft forgets it when it switches
            self._switch(enabled=False)
            try:
                yield backbone
            finally:
                self._switch(enabled=True)
                for parameter, needed in trained:
                    parameter.requires_grad_(needed)

    def _follow(self, backbone: Backbone, copy: Backbone) -> None:
        """To the device, and the precision, that training has moved the model to since."""
        there, here = next(backbone.parameters()), next(copy.parameters())
        if (there.device, there.dtype) != (here.device, here.dtype):
            copy.to(there.device, there.dtype)

    def _switch(self, enabled: bool) -> None:
        for module in self._adapters:
            module.enable_adapters(enabled)  # type: ignore[operator]
