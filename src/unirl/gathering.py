"""Weights that processes share out, gathered and let go of; and gradients, reduced."""

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Partial

from unirl.backbones.base import Backbone

BEGIN = "_begin_sharded"


class Whole:
    """Gathers all weights of a sharded backbone, and lets go of them.

    Args:
        backbone: `fully_shard` has been applied to it.
        skeleton: The same modules without weights.
    """

    def __init__(self, backbone: Backbone, skeleton: Backbone) -> None:
        self.backbone, self.skeleton = backbone, skeleton
        self.modules = [module for module in backbone.modules() if isinstance(module, FSDPModule)]
        self.inside, self.backward, self.held = False, False, False
        for module in self.modules:
            module.set_reshard_after_backward(False, recurse=False)  # what is called twice is needed twice
        named = [(name.rpartition("."), p) for name, p in backbone.named_parameters()]
        self.places = [(backbone.get_submodule(parent), name, p) for (parent, _, name), p in named]
        backbone.__dict__[BEGIN] = lambda: None
        register_fsdp_forward_method(backbone, BEGIN)

    def hold(self) -> None:
        if self.held:
            return
        self.backbone.__dict__[BEGIN]()  # FSDP sets itself up in the first call of all
        for module in self.modules:
            module.set_requires_gradient_sync(False, recurse=False)
        self.held = True
        self.gather()

    def reduce(self) -> None:
        """Every gradient's share, always of all parameters and in the same order: no process waits for another call."""
        for module, name, share in self.places:
            parameter = getattr(module, name)
            if not share.requires_grad:
                continue
            slope = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = None
            assert isinstance(share, DTensor)
            mesh, placements = share.device_mesh, share.placements
            slope = DTensor.from_local(slope.to(share.dtype) / mesh.size(), mesh, [Partial()] * mesh.ndim)
            mine = slope.redistribute(mesh, placements)
            share.grad = mine if share.grad is None else share.grad + mine

    def let_go(self) -> None:
        if not self.held:
            return
        self.held = False
        self.release()
        for module in self.modules:
            module.set_requires_gradient_sync(True, recurse=False)

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
