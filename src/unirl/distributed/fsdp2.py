"""FSDP2 for backbones: full weights while a method of the backbone runs, shards in between.

FSDP2 (`fully_shard`) gathers a module's weights in its forward call. A backbone is used through other methods, which
call its modules hundreds of times (decoding) and in an order that may differ between ranks. So all weights are gathered
once before a method, and resharded after it, or after its backward pass. `unshard` keeps them for a training step.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Partial

from unirl.backbones.base import Backbone

FULL_PARAMS = "_full_params"
"""Attribute of a sharded backbone that holds its `FullParams`; kept in `__dict__`, so it is not a submodule."""
LAZY_INIT = "_fsdp_lazy_init"
"""A method that does nothing: FSDP initializes itself in the first call of a registered method."""
METHODS = (
    *("sample_images", "sample_answers", "encode"),  # without gradient
    *("image_log_probs", "image_log_likelihood", "answer_log_probs", "decode", "straight_through"),
)
"""Methods of the backbone contract that need weights."""


class ShardedParam(NamedTuple):
    """A parameter of a sharded backbone.

    Args:
        module: The module that owns it.
        name: Its name there. While unsharded, the attribute is the full parameter.
        shard: The parameter that the optimizer updates.
    """

    module: nn.Module
    name: str
    shard: nn.Parameter


class FullParams:
    """Gathers and reshards all weights of a sharded backbone.

    Args:
        backbone: Sharded by `fully_shard`.
        meta_copy: The same modules on the meta device.
    """

    def __init__(self, backbone: Backbone, meta_copy: Backbone) -> None:
        self.backbone, self.meta_copy = backbone, meta_copy
        self.fsdp_modules = [module for module in backbone.modules() if isinstance(module, FSDPModule)]
        self.in_method, self.in_backward, self.unsharded = False, False, False
        for module in self.fsdp_modules:
            # A layer that is called several times is needed several times in the backward pass.
            module.set_reshard_after_backward(False, recurse=False)
        self.params = []
        for path, param in backbone.named_parameters():
            owner, _, name = path.rpartition(".")
            self.params.append(ShardedParam(backbone.get_submodule(owner), name, param))
        backbone.__dict__[LAZY_INIT] = lambda: None
        register_fsdp_forward_method(backbone, LAZY_INIT)

    @property
    def mesh(self) -> DeviceMesh:
        """The ranks that the weights are sharded over."""
        shard = self.params[0].shard
        assert isinstance(shard, DTensor)
        return shard.device_mesh

    def unshard(self) -> None:
        """Gather all weights and keep them until `reshard`."""
        if self.unsharded:
            return
        self.backbone.__dict__[LAZY_INIT]()
        for module in self.fsdp_modules:
            module.set_requires_gradient_sync(False, recurse=False)
        self.unsharded = True
        self.gather_weights()

    def reshard(self) -> None:
        """Free the weights that `unshard` gathered."""
        if not self.unsharded:
            return
        self.unsharded = False
        self.free_weights()
        for module in self.fsdp_modules:
            module.set_requires_gradient_sync(True, recurse=False)

    def gather_weights(self) -> None:
        """All-gather the weights of all modules."""
        for module in self.fsdp_modules:
            module.unshard()

    def free_weights(self) -> None:
        """Free the gathered weights of all modules."""
        for module in self.fsdp_modules:
            module.reshard()

    def reduce_grads(self) -> None:
        """Reduce-scatter the gradients of all parameters, in the same order on every rank.

        A parameter without a gradient counts as zero, since other ranks may have one.
        """
        for module, name, shard in self.params:
            if not shard.requires_grad:
                continue
            param = getattr(module, name)
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            param.grad = None
            assert isinstance(shard, DTensor)
            mesh, placements = shard.device_mesh, shard.placements
            partial = DTensor.from_local(grad.to(shard.dtype) / mesh.size(), mesh, [Partial()] * mesh.ndim)
            reduced = partial.redistribute(mesh, placements)
            shard.grad = reduced if shard.grad is None else shard.grad + reduced

    def pre_backward(self, grad: Tensor) -> None:
        """Hook on the outputs of a method: its backward pass needs the weights, which may be resharded by then."""
        if not self.in_backward:
            self.in_backward = True
            self.gather_weights()
            # FSDP learns in the same way that a backward pass is over. Its callback was queued before this one.
            torch.autograd.Variable._execution_engine.queue_callback(self.post_backward)

    def post_backward(self) -> None:
        """Called when a backward pass is over."""
        self.in_backward = False
        self.free_weights()


def shard(backbone: Backbone, mesh: DeviceMesh | None = None, **options: Any) -> None:
    """Shard each of `backbone.blocks`, then the rest, in place. All methods of the contract work afterwards.

    Optimizer states are always sharded. Weights are gathered while a method runs and while its gradient is computed.
    After `unshard`, as in training, weights and gradients are full until `reduce_grads_and_reshard`. Weights are not
    gathered block by block: decoding would gather each block at each step, which is slow, and hangs where ranks decode
    unequally many steps. Also, KV caches carry gradient past the output of a block, which FSDP takes as the sign to
    gather the block for the backward pass.

    Args:
        backbone: Built. A second call does nothing.
        mesh: The ranks to shard over. Defaults to all of them.
        options: Further arguments of `fully_shard`, such as `mp_policy`.
    """
    if isinstance(backbone, FSDPModule):
        return
    meta_copy = _copy_to_meta(backbone)
    for block in [module for module in backbone.modules() if isinstance(module, backbone.blocks)]:
        fully_shard(block, mesh=mesh, reshard_after_forward=False, **options)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=False, **options)
    params = FullParams(backbone, meta_copy)
    backbone.__dict__[FULL_PARAMS] = params
    for name in METHODS:
        _wrap_method(backbone, name, params)


def unshard(backbone: Backbone) -> None:
    """Gather all weights until `reshard` or `reduce_grads_and_reshard`. Collective; a no-op without shards.

    In between, the methods of the backbone are not collective. Ranks may call them unequally often: one may have no
    sample to train on, or a validation batch more.

    Args:
        backbone: Sharded or not.
    """
    if (params := _full_params(backbone)) is not None:
        params.unshard()


def reshard(backbone: Backbone) -> None:
    """Free the weights that `unshard` gathered; each rank keeps its shards. A no-op without shards.

    Args:
        backbone: Sharded or not.
    """
    if (params := _full_params(backbone)) is not None:
        params.reshard()


def reduce_grads_and_reshard(backbone: Backbone) -> None:
    """Reduce-scatter the gradients and reshard the weights. Call it after a backward pass, on every rank.

    Args:
        backbone: Unsharded by `unshard`; a no-op where it has no shards.
    """
    if (params := _full_params(backbone)) is not None:
        params.reduce_grads()
        params.reshard()


@contextmanager
def unsharded(backbone: Backbone) -> Iterator[None]:
    """`unshard` for the duration of a `with` block, without gradient.

    Args:
        backbone: Sharded or not.
    """
    unshard(backbone)
    try:
        yield
    finally:
        reshard(backbone)


def gather_full_model(backbone: Backbone, is_writer: bool) -> Backbone | None:
    """The full model on the CPU, to be saved. Collective: call it on every rank.

    Args:
        backbone: Sharded or not.
        is_writer: Whether this rank gets the model; must be rank 0.

    Returns:
        The model, or None on other ranks. A backbone without shards is returned itself.
    """
    params = _full_params(backbone)
    if params is None:
        return backbone if is_writer else None
    weights = get_model_state_dict(backbone, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not is_writer:
        return None
    model = copy.deepcopy(params.meta_copy)
    model.load_state_dict(weights, assign=True)
    return model


def frozen_copy(backbone: Backbone) -> Backbone:
    """A frozen copy in evaluation mode. The copy of a sharded backbone is made from shards and has the same shards.

    Args:
        backbone: Built, and not unsharded at the moment.
    """
    params = _full_params(backbone)
    if params is None:
        return copy.deepcopy(backbone).requires_grad_(False).eval()
    frozen = copy.deepcopy(params.meta_copy).requires_grad_(False).eval()
    shard(frozen, params.mesh)
    shards = {name: value.detach().clone() for name, value in backbone.state_dict().items()}
    frozen.load_state_dict(shards, assign=True)
    return frozen


def _full_params(backbone: Backbone) -> FullParams | None:
    return backbone.__dict__.get(FULL_PARAMS)


def _copy_to_meta(backbone: Backbone) -> Backbone:
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in backbone.parameters()}
    return copy.deepcopy(backbone, memo)


def _wrap_method(backbone: Backbone, name: str, params: FullParams) -> None:
    """Gather all weights around a method. A method that is called by another one finds them gathered."""
    original: Callable[..., Any] = getattr(backbone, name)

    def with_tensors(*args: Any, **kwargs: Any) -> tuple[Any, list[Tensor]]:
        params.gather_weights()  # inside the registered method: FSDP has been initialized by now
        result = original(*args, **kwargs)
        return result, _tensors(result)  # FSDP finds tensors in tuples and lists, not in dataclasses

    setattr(backbone, name, with_tensors)
    register_fsdp_forward_method(backbone, name)
    fsdp_method = getattr(backbone, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        if params.in_method or params.unsharded:
            return original(*args, **kwargs)
        params.in_method = True
        try:
            result, tensors = fsdp_method(*args, **kwargs)
        finally:
            params.in_method = False
        with_grad = [tensor for tensor in tensors if tensor.requires_grad]
        for tensor in with_grad:
            tensor.register_hook(params.pre_backward)
        if not with_grad:
            params.free_weights()
        return result

    setattr(backbone, name, method)


def _tensors(result: Any) -> list[Tensor]:
    values = [getattr(result, field.name) for field in fields(result)] if is_dataclass(result) else result
    values = values if isinstance(values, list | tuple) else [values]
    return [value for value in values if isinstance(value, Tensor)]
