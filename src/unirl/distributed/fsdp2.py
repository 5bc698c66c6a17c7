"""FSDP2 for backbones: full weights while a rollout is generated, shards in the loss.

A rollout calls the layers hundreds of times, so all weights are gathered once, and freed after it (`unsharded`). In the
loss each block is gathered in its own forward and backward pass, and its gradient is reduced and sharded at once
(`fully_shard` with `reshard_after_forward`). Parameters outside the blocks are gathered where they are read
(`unirl.distributed.gathered`).

A backbone is called through other methods than `forward`. `shard` registers them with FSDP. All ranks must call them
equally often; the number of samples may differ, since it is padded to the largest of all ranks.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from unirl.backbones.base import Backbone
from unirl.distributed.gathered import GatheredParameters, compute_device
from unirl.sampling.kv_cache import returns_cache
from unirl.types import Answers, Images

SHARDING = "_sharding"
"""Attribute of a sharded backbone that holds its `Sharding`; kept in `__dict__`, so it is not a submodule."""
LAZY_INIT = "_fsdp_lazy_init"
"""A method that does nothing: FSDP initializes itself in the first call of a registered method."""
SAMPLING_METHODS = ("sample_images", "sample_answers")
"""Methods without gradient that call the layers many times: all weights are gathered around them."""
GRADIENT_METHODS = ("image_log_probs", "image_log_likelihood", "straight_through", "answer_log_probs")
"""Methods of the loss, in which each block is gathered when it is needed."""
PIXEL_METHODS = ("decode", "encode")
"""Methods that work as those of the loss, and are also called in a rollout."""
FULL_PRECISION = MixedPrecisionPolicy(cast_forward_inputs=False)
"""Weights are gathered, and gradients reduced, in the type of the shards."""


class Sharding:
    """The state of a sharded backbone.

    Args:
        backbone: Its blocks were sharded by `fully_shard`.
        meta_copy: The same modules on the meta device.
        gathered: Its other parameters.
        mesh: The ranks that it is sharded over.
        mp_policy: Types of gathered weights and reduced gradients.
        offload_copy: As for `shard`.
    """

    def __init__(
        self,
        backbone: Backbone,
        meta_copy: Backbone,
        gathered: GatheredParameters,
        mesh: DeviceMesh,
        mp_policy: MixedPrecisionPolicy,
        offload_copy: bool,
    ) -> None:
        self.backbone, self.meta_copy, self.gathered = backbone, meta_copy, gathered
        self.mesh, self.mp_policy, self.offload_copy = mesh, mp_policy, offload_copy
        self.blocks = [module for module in backbone.modules() if isinstance(module, FSDPModule)]
        self.in_method, self.is_unsharded = False, False
        backbone.__dict__[LAZY_INIT] = lambda: None
        register_fsdp_forward_method(backbone, LAZY_INIT)

    def unshard(self) -> None:
        """Gather all weights and keep them until `reshard`."""
        if self.is_unsharded:
            return
        self.is_unsharded = True
        self.backbone.__dict__[LAZY_INIT]()
        for block in self.blocks:
            block.set_reshard_after_forward(False, recurse=False)
            block.unshard()
        self.gathered.unshard()

    def reshard(self) -> None:
        """Free the weights that `unshard` gathered."""
        if not self.is_unsharded:
            return
        self.is_unsharded = False
        self.gathered.reshard()
        for block in self.blocks:
            block.set_reshard_after_forward(True, recurse=False)
            block.reshard()


def shard(
    backbone: Backbone,
    mesh: DeviceMesh | None = None,
    mp_policy: MixedPrecisionPolicy = FULL_PRECISION,
    offload: bool = False,
    offload_copy: bool = False,
) -> None:
    """Shard each of `backbone.blocks`, then all other parameters, in place. All methods work afterwards.

    Weights, gradients and optimizer states are sharded over the ranks, in the type of the weights; vectors such as
    biases are on every rank. In the loss a rank holds its shards, the block at work, and activations. Call
    `finish_backward` after each backward pass.

    Args:
        backbone: Built. A second call does nothing.
        mesh: The ranks to shard over. Defaults to all of them.
        mp_policy: Types of the gathered weights and of the gradients while they are reduced.
        offload: Keep shards, and with them optimizer states, on the CPU.
        offload_copy: Keep the shards of a `frozen_copy` on the CPU.
    """
    if is_sharded(backbone):
        return
    if mesh is None:
        mesh = init_device_mesh(next(backbone.parameters()).device.type, (dist.get_world_size(),))
    meta_copy = _copy_to_meta(backbone)
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": mp_policy, "reshard_after_forward": True}
    if offload:
        options["offload_policy"] = CPUOffloadPolicy()
    blocks = [module for module in backbone.modules() if isinstance(module, backbone.blocks)]
    gathered = GatheredParameters(mesh, mp_policy.param_dtype, offload)
    gathered.add(backbone, {id(parameter) for block in blocks for parameter in block.parameters()})
    for block in blocks:
        block.forward = returns_cache(block.forward)
        fully_shard(block, **options, ignored_params=gathered.parameters)
    fully_shard(backbone, **options, ignored_params=gathered.parameters)
    sharding = Sharding(backbone, meta_copy, gathered, mesh, mp_policy, offload_copy)
    backbone.__dict__[SHARDING] = sharding
    for name in (*SAMPLING_METHODS, *GRADIENT_METHODS, *PIXEL_METHODS):
        _wrap_method(backbone, name, sharding)


def is_sharded(backbone: Backbone) -> bool:
    """Whether `shard` was called. All ranks must then call the scoring methods equally often.

    Args:
        backbone: Built or not.
    """
    return SHARDING in backbone.__dict__


def unshard(backbone: Backbone) -> None:
    """Gather all weights until `reshard`, without gradient. Collective; a no-op without shards.

    In between, the methods of the backbone are not collective: ranks may call them unequally often.

    Args:
        backbone: Sharded or not.
    """
    if is_sharded(backbone):
        backbone.__dict__[SHARDING].unshard()


def reshard(backbone: Backbone) -> None:
    """Free the weights that `unshard` gathered; each rank keeps its shards. A no-op without shards.

    Args:
        backbone: Sharded or not.
    """
    if is_sharded(backbone):
        backbone.__dict__[SHARDING].reshard()


@contextmanager
def unsharded(backbone: Backbone) -> Iterator[None]:
    """`unshard` for the duration of a `with` block. Where all weights are gathered already, it does nothing.

    Args:
        backbone: Sharded or not.
    """
    sharding: Sharding | None = backbone.__dict__.get(SHARDING)
    if sharding is None or sharding.is_unsharded:
        yield
        return
    sharding.unshard()
    try:
        yield
    finally:
        sharding.reshard()


def finish_backward(backbone: Backbone) -> None:
    """Complete the gradients. Call it after a backward pass, on every rank; a no-op without shards.

    Gradients of replicated vectors are averaged over the ranks, and missing gradients are filled with zeros: a
    parameter may get none on any rank, and an optimizer would skip it, which it would not in one process.

    Args:
        backbone: Sharded or not.
    """
    if not is_sharded(backbone):
        return
    gathered = backbone.__dict__[SHARDING].gathered
    gathered.active = False
    gathered.reduce_replicated()
    for parameter in backbone.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def gather_full_model(backbone: Backbone, is_writer: bool) -> Backbone | None:
    """The full model on the CPU, to be saved. Collective: call it on every rank.

    Args:
        backbone: Sharded or not.
        is_writer: Whether this rank gets the model; must be rank 0.

    Returns:
        The model, or None on other ranks. A backbone without shards is returned itself.
    """
    if not is_sharded(backbone):
        return backbone if is_writer else None
    sharding: Sharding = backbone.__dict__[SHARDING]
    sharding.gathered.active = False
    weights = get_model_state_dict(backbone, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not is_writer:
        return None
    model = copy.deepcopy(sharding.meta_copy)
    model.load_state_dict(weights, assign=True)
    return model


def frozen_copy(backbone: Backbone) -> Backbone:
    """A frozen copy in evaluation mode. The copy of a sharded backbone is made from shards and has the same shards.

    Args:
        backbone: Built, and not unsharded at the moment.
    """
    if not is_sharded(backbone):
        return copy.deepcopy(backbone, _without_profiler(backbone)).requires_grad_(False).eval()
    sharding: Sharding = backbone.__dict__[SHARDING]
    frozen = copy.deepcopy(sharding.meta_copy).requires_grad_(False).eval()
    shard(frozen, sharding.mesh, sharding.mp_policy, sharding.offload_copy)
    device = "cpu" if sharding.offload_copy else compute_device(sharding.mesh)
    shards = {name: value.detach().to(device, copy=True) for name, value in backbone.state_dict().items()}
    frozen.load_state_dict(shards, assign=True)
    return frozen


def _copy_to_meta(backbone: Backbone) -> Backbone:
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in backbone.parameters()}
    return copy.deepcopy(backbone, memo | _without_profiler(backbone))


def _without_profiler(backbone: Backbone) -> dict[int, Any]:
    """A memo for `deepcopy` that leaves out the hooks of Lightning's PyTorchProfiler, which cannot be copied."""
    memo: dict[int, Any] = {}
    for module in backbone.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            own = {key: hook for key, hook in hooks.items() if _owner(hook) != "RegisterRecordFunction"}
            if len(own) < len(hooks):
                memo[id(hooks)] = OrderedDict(own)
    return memo


def _owner(hook: Any) -> str:
    """The name of the class of whose object a hook is a method."""
    return type(getattr(getattr(hook, "func", hook), "__self__", None)).__name__


def _wrap_method(backbone: Backbone, name: str, sharding: Sharding) -> None:
    """Make a method of the contract work on shards. One that is called by another one is left as it is."""
    original: Callable[..., Any] = getattr(backbone, name)
    is_sampling = name in SAMPLING_METHODS

    def padded(*args: Any, **kwargs: Any) -> Any:
        with sharding.gathered.reading():
            return _with_equal_rows(original, args, kwargs, sharding.mesh)

    backbone.__dict__[name] = padded
    register_fsdp_forward_method(backbone, name)
    fsdp_method = getattr(backbone, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        if sharding.in_method:
            return original(*args, **kwargs)
        if sharding.is_unsharded and torch.is_grad_enabled() and _has_gradient(name, (*args, *kwargs.values())):
            raise RuntimeError(f"{name} with gradient while all weights are gathered: gradients would be lost")
        sharding.in_method = True
        try:
            if is_sampling or sharding.is_unsharded:
                with unsharded(backbone), torch.no_grad():
                    return original(*args, **kwargs)
            result = fsdp_method(*args, **kwargs)
            sharding.gathered.active |= any(tensor.requires_grad for tensor in _tensors(result))
            return result
        finally:
            sharding.in_method = False

    backbone.__dict__[name] = method


def _with_equal_rows(method: Callable[..., Any], args: Any, kwargs: dict[str, Any], mesh: DeviceMesh) -> Any:
    """Call a method with as many images on every rank, since some methods work on a few images at a time.

    Where another rank has more, the first image is repeated; results of repeated images are dropped.

    Raises:
        ValueError: this rank has no image, and another one has.
    """
    values = [*args, *kwargs.values()]
    count = next(len(value) for kind in (Images, Tensor) for value in values if isinstance(value, kind))
    largest = _max_over_ranks(count, mesh)
    if count == largest:
        return method(*args, **kwargs)
    if count == 0:
        raise ValueError("a rank without samples must score one with weight 0, so that all ranks make the same calls")
    rows, kept = torch.tensor([*range(count), *[0] * (largest - count)]), torch.arange(count)
    args = [_select(value, rows, count) for value in args]
    result = method(*args, **{name: _select(value, rows, count) for name, value in kwargs.items()})
    if isinstance(result, tuple):
        return tuple(_select(value, kept, largest) for value in result)
    return _select(result, kept, largest)


def _select(value: Any, rows: Tensor, count: int) -> Any:
    """The rows of an argument or result that has k rows for each of `count` images; other values as they are."""
    if isinstance(value, str) or not isinstance(value, Images | Answers | Tensor | Sequence):
        return value
    per_image = len(value) // count
    rows = (rows[:, None] * per_image + torch.arange(per_image)).flatten()
    return value[rows] if isinstance(value, Images | Answers | Tensor) else [value[i] for i in rows.tolist()]


def _max_over_ranks(count: int, mesh: DeviceMesh) -> int:
    if mesh.size() == 1:
        return count
    value = torch.tensor(count, device=mesh.device_type)
    dist.all_reduce(value, dist.ReduceOp.MAX, group=mesh.get_group())
    return int(value)


def _has_gradient(method: str, arguments: Sequence[Any]) -> bool:
    tensors = (tensor for argument in arguments for tensor in _tensors(argument))
    return method in GRADIENT_METHODS or any(tensor.requires_grad for tensor in tensors)


def _tensors(result: Any) -> list[Tensor]:
    values = list(vars(result).values()) if isinstance(result, Images | Answers) else result
    return [value for value in (values if isinstance(values, list | tuple) else [values]) if isinstance(value, Tensor)]
