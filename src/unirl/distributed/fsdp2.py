"""Weights that processes share out, gathered and let go of; and gradients, reduced."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Partial

from unirl.backbones.base import Backbone

BEGIN = "_begin_sharded"


class FullParams:
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


SAMPLING = ("sample_images", "sample_answers", "encode")
"""Methods without gradient."""
KEPT = "_whole"
"""Where a sharded backbone keeps what gathers it."""
SCORING = ("image_log_probs", "image_log_likelihood", "answer_log_probs", "decode", "straight_through")


def shard(backbone: Backbone, mesh: DeviceMesh | None = None, **options: Any) -> None:
    """Shard each of `blocks`, then the rest, in place; every method of the contract then works, the first call too.

    Optimizer states are sharded all the time. Weights are whole while a method runs and while its gradient is computed;
    under `hold`, as in training, they and the gradients are whole until `settle`. Decoding could not gather a block at
    each step: that would be slow, and would hang where one process is done before another. And cached keys carry
    gradient past a block's output, which FSDP takes for the sign to gather it again.

    Args:
        backbone: Built. A second call does nothing.
        mesh: The processes to shard over; all of them by default.
        options: Passed on to PyTorch's `fully_shard`, such as `mp_policy`.
    """
    if isinstance(backbone, FSDPModule):
        return
    skeleton = _skeleton(backbone)
    for module in [module for module in backbone.modules() if isinstance(module, backbone.blocks)]:
        fully_shard(module, mesh=mesh, reshard_after_forward=False, **options)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=False, **options)
    whole = FullParams(backbone, skeleton)
    backbone.__dict__[KEPT] = whole  # nobody's submodule
    for name in (*SAMPLING, *SCORING):
        _enter_by(backbone, name, whole)


def is_sharded(backbone: Backbone) -> bool:
    """Whether `shard` was called."""
    return KEPT in backbone.__dict__


def mesh_of(backbone: Backbone) -> DeviceMesh:
    """The processes that a sharded backbone is sharded over."""
    whole: FullParams = backbone.__dict__[KEPT]
    return whole.places[0][2].device_mesh  # type: ignore[attr-defined]


def unshard(backbone: Backbone) -> None:
    """Gather all weights of a sharded backbone, on all processes, until `settle` or `release`; nothing for another one.

    Meanwhile its methods wait for nobody, so processes may call them unequally often: one may have no sample to learn
    from, or one batch more to validate.

    Args:
        backbone: Sharded, or whole.
    """
    if (whole := backbone.__dict__.get(KEPT)) is not None:
        whole.hold()


def reduce_grads_and_reshard(backbone: Backbone) -> None:
    """After a backward pass: each process keeps its share of the mean gradient, and of the weights.

    Args:
        backbone: Held by `hold`.
    """
    if (whole := backbone.__dict__.get(KEPT)) is not None:
        whole.reduce()
        whole.let_go()


def reshard(backbone: Backbone) -> None:
    """Each process keeps its share of the weights.

    Args:
        backbone: Held by `hold`.
    """
    if (whole := backbone.__dict__.get(KEPT)) is not None:
        whole.let_go()


@contextmanager
def unsharded(backbone: Backbone) -> Iterator[None]:
    """`hold` for the time of a `with` block, without gradient.

    Args:
        backbone: Sharded, or whole.
    """
    unshard(backbone)
    try:
        yield
    finally:
        reshard(backbone)


def gather_full_model(backbone: Backbone, writes: bool) -> Backbone | None:
    """The model in one piece, on the CPU, to be saved; all processes must call it.

    Args:
        backbone: Sharded, or whole: then it is returned as it is.
        writes: Whether this process, the first one, is given it; the others get None.
    """
    whole: FullParams | None = backbone.__dict__.get(KEPT)
    if whole is None:
        return backbone if writes else None
    weights = get_model_state_dict(backbone, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not writes:
        return None
    model = copy.deepcopy(whole.skeleton)
    model.load_state_dict(weights, assign=True)
    return model


def frozen_copy(backbone: Backbone) -> Backbone:
    """A frozen copy; of a sharded backbone a sharded one, which no process ever holds whole.

    Args:
        backbone: Built; not held by `hold`.
    """
    whole: FullParams | None = backbone.__dict__.get(KEPT)
    if whole is None:
        return copy.deepcopy(backbone).requires_grad_(False).eval()
    other = copy.deepcopy(whole.skeleton).requires_grad_(False).eval()
    shard(other, mesh_of(backbone))
    shares = {name: value.detach().clone() for name, value in backbone.state_dict().items()}
    other.load_state_dict(shares, assign=True)
    return other


def _skeleton(backbone: Backbone) -> Backbone:
    """The same modules without weights."""
    empty: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in backbone.parameters()}
    return copy.deepcopy(backbone, empty)


def _enter_by(backbone: Backbone, name: str, whole: FullParams) -> None:
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
        if whole.inside or whole.held:
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
