"""Sharding any backbone over processes with FSDP2, from nothing but its `blocks`."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from unirl.backbones.base import Backbone

SAMPLING = ("sample_images", "sample_answers", "encode")
"""Methods without gradient."""
SCORING = ("image_log_probs", "picture_log_probs", "answer_log_probs", "decode", "relax")


def shard(backbone: Backbone, mesh: DeviceMesh | None = None, **options: Any) -> None:
    """Shard each of `blocks`, then the rest, in place; every method of the contract then works, the first call too.

    Gradients and optimizer states are sharded all the time, gradients a block at a time; weights are whole while a
    method runs and while its gradient is computed. Decoding could not gather a block at each step: that would be slow,
    and would hang where one process is done before another. And cached keys carry gradient past a block's output,
    which FSDP takes for the sign to gather it again.

    Args:
        backbone: Built. A second call does nothing.
        mesh: The processes to shard over; all of them by default.
        options: Passed on to PyTorch's `fully_shard`, such as `mp_policy`.
    """
    if isinstance(backbone, FSDPModule):
        return
    for module in [module for module in backbone.modules() if isinstance(module, backbone.blocks)]:
        fully_shard(module, mesh=mesh, reshard_after_forward=False, **options)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=False, **options)
    whole = _Whole([module for module in backbone.modules() if isinstance(module, FSDPModule)])
    for name in (*SAMPLING, *SCORING):
        _enter_by(backbone, name, whole)


class _Whole:
    """Gathers all weights, and lets go of them."""

    def __init__(self, modules: list[FSDPModule]) -> None:
        self.modules, self.inside, self.backward = modules, False, False
        for module in modules:
            module.set_reshard_after_backward(False, recurse=False)  # what is called twice is needed twice

    def gather(self) -> None:
        for module in self.modules:
            module.unshard()

    def release(self) -> None:
        for module in self.modules:
            module.reshard()

    def begin_backward(self, slope: Tensor) -> None:
        """Called by autograd when it enters what a method has computed; the weights may be gone by then."""
        if not self.backward:
            self.backward = True
            self.gather()
            # FSDP's own way of learning that a backward pass is over; its callback stands before this one.
            torch.autograd.Variable._execution_engine.queue_callback(self.end_backward)

    def end_backward(self) -> None:
        self.backward = False
        self.release()


def _enter_by(backbone: Backbone, name: str, whole: _Whole) -> None:
    """Let a method find all weights. One that is called by another finds them already."""
    plain: Callable[..., Any] = getattr(backbone, name)

    def seen(*args: Any, **kwargs: Any) -> tuple[Any, list[Tensor]]:
        whole.gather()  # only now: the first call of all sets FSDP up
        result = plain(*args, **kwargs)
        return result, _tensors(result)  # FSDP looks for tensors in tuples and lists, not in dataclasses

    setattr(backbone, name, seen)
    register_fsdp_forward_method(backbone, name)
    hooked = getattr(backbone, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        if whole.inside:
            return plain(*args, **kwargs)
        whole.inside = True
        try:
            result, tensors = hooked(*args, **kwargs)
        finally:
            whole.inside = False
        learning = [tensor for tensor in tensors if tensor.requires_grad]
        for tensor in learning:
            tensor.register_hook(whole.begin_backward)
        if not learning:
            whole.release()
        return result

    setattr(backbone, name, method)


def _tensors(result: Any) -> list[Tensor]:
    values = [getattr(result, field.name) for field in fields(result)] if is_dataclass(result) else result
    values = values if isinstance(values, list | tuple) else [values]
    return [value for value in values if isinstance(value, Tensor)]
