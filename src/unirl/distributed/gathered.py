"""Sharded parameters that are gathered where they are read: those of a backbone that `fully_shard` cannot serve.

FSDP2 gathers the parameters of a module in the module's forward call. Embeddings, heads and image tokenizers are also
read otherwise: a slice of a head's rows, a table of codes. So each read of a matrix outside the blocks gathers it, the
gradient of each read is reduced and sharded at once, and what the backward pass needs is gathered again. No full matrix
is held longer than the operation that reads it.

Vectors (biases, weights of norms) are a thousandth of a model. Every rank has all of them, in float32 as autocast wants
norms, and their gradients are averaged together after the backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.multiprocessing.reductions import StorageWeakRef

from unirl.backbones.precision import float32_modules

# Torch 2.14 deprecates the old names.
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _Entry(NamedTuple):
    """A parameter: its module, its name there, the type in which it is gathered, and whether it is sharded at all."""

    module: nn.Module
    name: str
    dtype: torch.dtype
    is_sharded: bool

    @property
    def shard(self) -> Any:
        return self.module._parameters[self.name]  # a DTensor; optimizers and checkpoints see it under this name


class GatheredParameters:
    """Shards matrices over a mesh and gathers each of them where it is read; replicates vectors.

    Args:
        mesh: The ranks to shard over.
        dtype: Type in which matrices are gathered; None keeps theirs. Embedding tables and heads keep theirs.
        offload: Whether shards are kept on the CPU.
    """

    def __init__(self, mesh: DeviceMesh, dtype: torch.dtype | None = None, offload: bool = False) -> None:
        self.mesh, self.dtype, self.offload = mesh, dtype, offload
        self.active = False
        """Whether a read gathers, as in a backward pass with checkpointed layers. Otherwise it gives the shard."""
        self._entries: list[_Entry] = []
        self._full: dict[tuple[int, torch.dtype], Tensor] = {}
        self._live: dict[StorageWeakRef, _Entry] = {}

    @property
    def parameters(self) -> set[nn.Parameter]:
        """The shards of all parameters."""
        return {entry.shard for entry in self._entries}

    def add(self, backbone: nn.Module, in_blocks: set[int]) -> None:
        """Shard or replicate parameters in place. One that several modules share stays shared.

        Args:
            backbone: The model.
            in_blocks: Identities of the parameters of its blocks, whose matrices are left to FSDP.
        """
        replaced, heads = dict[int, nn.Parameter](), float32_modules(backbone)
        for module in list(backbone.modules()):
            for name, parameter in list(module._parameters.items()):
                if parameter is None or (parameter.ndim > 1 and id(parameter) in in_blocks):
                    continue
                if id(parameter) not in replaced:
                    replaced[id(parameter)] = self._distribute(parameter)
                module._parameters[name] = replaced[id(parameter)]
                keeps_dtype = parameter.ndim < 2 or isinstance(module, nn.Embedding) or module in heads
                dtype = None if keeps_dtype or not parameter.is_floating_point() else self.dtype
                self._entries.append(_Entry(module, name, dtype or parameter.dtype, parameter.ndim > 1))
                _read_through(self, self._entries[-1])

    def read(self, entry: _Entry) -> Tensor:
        """The parameter for a computation: whole, with gradient; or the shard where nothing is computed."""
        if self._full:
            return self._full[id(entry.shard), entry.dtype]
        if not entry.is_sharded:
            local: Tensor = entry.shard.to_local()
            return local.to(compute_device(self.mesh)) if self.offload else local
        if not self.active:
            return entry.shard
        full: Tensor = _Gather.apply(entry.shard, self, entry)
        self._live[StorageWeakRef(full.untyped_storage())] = entry
        return full

    @torch.no_grad()
    def reduce_replicated(self) -> None:
        """Average the gradients of the replicated vectors over all ranks, all at once. Collective."""
        shards = {id(entry.shard): entry.shard for entry in self._entries if not entry.is_sharded}
        trainable = [shard for shard in shards.values() if shard.requires_grad]
        if not trainable or self.mesh.size() == 1:
            return
        grads = [torch.zeros_like(p.to_local()) if p.grad is None else p.grad.to_local() for p in trainable]
        flat = torch.cat([grad.flatten() for grad in grads]).to(compute_device(self.mesh))
        dist.all_reduce(flat, group=self.mesh.get_group())
        sizes = [grad.numel() for grad in grads]
        for parameter, grad, mean in zip(trainable, grads, flat.div_(self.mesh.size()).split(sizes), strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.to_local().copy_(mean.view_as(grad))

    @torch.no_grad()
    def unshard(self) -> None:
        """Gather all parameters, without gradient, until `reshard`."""
        for entry in self._entries:
            key = id(entry.shard), entry.dtype
            if key not in self._full:
                self._full[key] = self.gather(entry)

    def reshard(self) -> None:
        """Free what `unshard` gathered."""
        self._full.clear()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads gather within a `with` block; what its backward pass needs is gathered again."""
        before, self.active = self.active, True
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                yield
        finally:
            self._live.clear()
            self.active = before

    def gather(self, entry: _Entry) -> Tensor:
        """The full parameter, without gradient. Collective where it is sharded."""
        shard, world_size = entry.shard, self.mesh.size()
        local = shard.to_local().detach().to(compute_device(self.mesh), entry.dtype)
        if world_size == 1 or not entry.is_sharded:
            return local.clone()
        rows = -(-shard.shape[0] // world_size)
        full = local.new_empty((rows * world_size, *shard.shape[1:]))
        ALL_GATHER(full, _pad(local, rows), group=self.mesh.get_group())
        return full[: shard.shape[0]]

    def reduce(self, gradient: Tensor, entry: _Entry) -> Tensor:
        """The mean of a gradient over all ranks, sharded, in the type of the shards. Collective."""
        shard, world_size = entry.shard, self.mesh.size()
        gradient, local = gradient.to(shard.dtype), shard.to_local()
        rows = -(-shard.shape[0] // world_size)
        reduced = gradient.new_empty((rows, *shard.shape[1:]))
        REDUCE_SCATTER(reduced, _pad(gradient, rows * world_size), group=self.mesh.get_group())
        return _as_dtensor(reduced[: len(local)].div_(world_size).to(local.device), self.mesh, shard.shape)

    def _distribute(self, parameter: nn.Parameter) -> nn.Parameter:
        value = parameter.detach()
        if parameter.ndim > 1:
            rows = -(-len(value) // self.mesh.size())
            value = value[rows * self.mesh.get_local_rank() :][:rows].clone()
        if not value.is_meta:  # a model is built on the CPU
            value = value.to("cpu" if self.offload else compute_device(self.mesh))
        return nn.Parameter(_as_dtensor(value, self.mesh, parameter.shape), parameter.requires_grad)

    def _pack(self, tensor: Tensor) -> Any:
        if isinstance(tensor, DTensor) or tensor.layout != torch.strided:
            return tensor
        entry = self._live.get(StorageWeakRef(tensor.untyped_storage()))
        if entry is None or tensor.dtype != entry.dtype:
            return tensor
        return entry, tensor.shape, tensor.stride(), tensor.storage_offset()

    @torch.no_grad()
    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        entry, *layout = packed
        return self.gather(entry).as_strided(*layout)


class _Gather(torch.autograd.Function):
    """All-gather of a shard; in the backward pass reduce-scatter of its gradient."""

    @staticmethod
    def forward(ctx: Any, shard: DTensor, owner: GatheredParameters, entry: _Entry) -> Tensor:
        ctx.owner, ctx.entry = owner, entry
        return owner.gather(entry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.owner.reduce(gradient, ctx.entry), None, None


def _read_through(owner: GatheredParameters, entry: _Entry) -> None:
    """Give the module a class whose attribute is read by `owner`. The name of the parameter stays."""
    kind = type(entry.module)
    getter = property(lambda _: owner.read(entry))
    entry.module.__class__ = type(kind.__name__, (kind,), {entry.name: getter, "__module__": kind.__module__})


def _pad(tensor: Tensor, rows: int) -> Tensor:
    """At least so many rows, filled with zeros."""
    if len(tensor) == rows:
        return tensor.contiguous()
    padded = tensor.new_zeros((rows, *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    return padded


def _as_dtensor(local: Tensor, mesh: DeviceMesh, shape: torch.Size) -> DTensor:
    placement = Shard(0) if len(shape) > 1 else Replicate()
    stride = torch.empty(shape, dtype=torch.uint8, device="meta").stride()
    return DTensor.from_local(local, mesh, [placement], run_check=False, shape=shape, stride=stride)


def compute_device(mesh: DeviceMesh) -> torch.device:
    """This rank's device in a mesh."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())
