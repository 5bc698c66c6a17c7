"""Sharding any backbone over processes with FSDP2, from nothing but its `blocks`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from unirl.backbones.base import Backbone

SAMPLING = ("sample_images", "sample_answers", "encode")
"""Methods without gradient. They loop over decode steps, and processes may need different numbers of them."""
SCORING = ("image_log_probs", "picture_log_probs", "answer_log_probs", "decode", "relax")


def shard(backbone: Backbone, mesh: DeviceMesh | None = None, **options: Any) -> None:
    """Shard each of `blocks`, then the rest, in place; every method of the contract then works, the first call too.

    Scoring with gradient gathers a block at a time. What needs no gradient gathers the whole model once and lets go of
    it afterwards: a gather for each block of each decode step would be slow, and would hang where one process is done
    before another. So a process must have room for the whole model without its gradients and optimizer states.

    Args:
        backbone: Built. A second call does nothing.
        mesh: The processes to shard over; all of them by default.
        options: Passed on to PyTorch's `fully_shard`, such as `mp_policy`.
    """
    if isinstance(backbone, FSDPModule):
        return
    for module in [module for module in backbone.modules() if isinstance(module, backbone.blocks)]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True, **options)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=False, **options)
    busy: list[str] = []
    for name in (*SAMPLING, *SCORING):
        _enter_by(backbone, name, busy)


def _enter_by(backbone: Backbone, name: str, busy: list[str]) -> None:
    """Make a method gather what it needs. One that is called by another finds everything as it should be."""
    plain: Callable[..., Any] = getattr(backbone, name)

    def seen(*args: Any, **kwargs: Any) -> tuple[Any, list[Tensor]]:
        # FSDP hooks into the backward pass by tensors that it finds in tuples and lists, not in dataclasses.
        if name in SAMPLING or not torch.is_grad_enabled():
            with _gathered(backbone):
                result = plain(*args, **kwargs)
        else:
            result = plain(*args, **kwargs)
        return result, _tensors(result)

    setattr(backbone, name, seen)
    register_fsdp_forward_method(backbone, name)
    hooked = getattr(backbone, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        if busy:
            return plain(*args, **kwargs)
        busy.append(name)
        try:
            return hooked(*args, **kwargs)[0]
        finally:
            busy.clear()
            if name in SAMPLING or not torch.is_grad_enabled():
                backbone.reshard()  # type: ignore[operator]

    setattr(backbone, name, method)


@contextmanager
def _gathered(backbone: Backbone) -> Iterator[None]:
    """All blocks whole for the time of a `with` block, for code that reads their weights or calls them many times."""
    blocks = [module for module in backbone.modules() if isinstance(module, FSDPModule) and module is not backbone]
    for block in blocks:
        block.set_reshard_after_forward(False, recurse=False)
        block.unshard()
    try:
        yield
    finally:
        for block in blocks:
            block.set_reshard_after_forward(True, recurse=False)
            block.reshard()


def _tensors(result: Any) -> list[Tensor]:
    values = [getattr(result, field.name) for field in fields(result)] if is_dataclass(result) else result
    values = values if isinstance(values, list | tuple) else [values]
    return [value for value in values if isinstance(value, Tensor)]
