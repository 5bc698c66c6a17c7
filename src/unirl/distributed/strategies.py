"""Lightning strategies: the name `fsdp2`, which strategies are supported, and building models under them."""

from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from typing_extensions import override

from unirl.backbones.precision import AUTOCAST_DTYPES
from unirl.errors import UserError

FSDP2 = "fsdp2"


class FSDP2Strategy(ModelParallelStrategy):
    """FSDP2 over all processes: weights, gradients and optimizer states are sharded, in float32.

    With `precision: bf16-mixed`, weights are gathered in bfloat16, and gradients are reduced in float32.

    Args:
        offload: Keep the shards of weights, gradients and optimizer states on the CPU, and step the optimizer there.
            Not run on a GPU by this project's tests.
        offload_reference: Keep the shards of a KL reference on the CPU. Not run on a GPU by this project's tests.
        save_distributed_checkpoint: Whether each process saves its shards to a folder. Otherwise process 0 gathers
            everything and saves one file.
        timeout: How long processes wait for one another.
    """

    def __init__(
        self,
        offload: bool = False,
        offload_reference: bool = False,
        save_distributed_checkpoint: bool = True,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        super().__init__(save_distributed_checkpoint=save_distributed_checkpoint, timeout=timeout)
        self.offload, self.offload_reference = offload, offload_reference

    @override
    def model_to_device(self) -> None:
        if not self.offload:
            super().model_to_device()
            return
        assert self.model is not None
        for module in self.model.modules():  # buffers are not sharded
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(self.root_device)


def register() -> None:
    """Register `fsdp2` as a name of `FSDP2Strategy`, for `--trainer.strategy fsdp2`."""
    if FSDP2 not in StrategyRegistry:
        description = "FSDP2: weights, gradients and optimizer states are sharded over all processes"
        StrategyRegistry.register(FSDP2, FSDP2Strategy, description)


def check(strategy: Strategy) -> None:
    """Refuse a strategy that cannot train a backbone.

    FSDP1 and DeepSpeed gather the weights of a module in its forward call only. Sampling and scoring are not forward
    calls, read single weights, and keep a KV cache over many steps.

    Args:
        strategy: The trainer's strategy.

    Raises:
        UserError: the strategy is FSDP1 or DeepSpeed.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        name = type(strategy).__name__
        raise UserError(
            f"trainer.strategy: {name} gathers weights in forward calls only, and sampling is none; give {FSDP2!r} "
            "(FSDP2), which shards the same tensors, or 'ddp' where the model fits on one device"
        )


def mixed_precision_policy(precision: str) -> MixedPrecisionPolicy:
    """The types of FSDP2's gathered weights and reduced gradients; shards have the type of the weights.

    Args:
        precision: Lightning's, such as "bf16-mixed".

    Example:
        >>> mixed_precision_policy("bf16-mixed").reduce_dtype
        torch.float32
    """
    dtype = AUTOCAST_DTYPES.get(precision)
    # Autocast chooses the types of activations, as without shards.
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def build_rank_by_rank(build: Callable[[DeviceMesh | None], None], strategy: Strategy | None) -> None:
    """Build and shard the models of a machine one rank after another. Collective: call it on every rank.

    A machine then needs memory for one full model and the shards, not for as many models as it has devices, and a
    backbone needs no other way of loading. Under strategies other than ModelParallelStrategy all ranks build at once.

    Args:
        build: Builds the model of this rank and shards it over the mesh that it is given. None means no sharding.
            Must not be collective.
        strategy: The trainer's strategy; None without a trainer.

    Raises:
        UserError: another rank could not build its model. An error of this rank's `build` is raised as it is.
    """
    if not isinstance(strategy, ModelParallelStrategy) or not dist.is_initialized():
        build(None)
        return
    mesh = _data_parallel_mesh(strategy)  # making a mesh is collective, so it is made before the turns
    for turn in range(strategy.num_processes):
        error: Exception | None = None
        if turn == strategy.local_rank:
            try:
                build(mesh)
            except Exception as caught:
                error = caught
        messages: list[str | None] = [None] * strategy.world_size
        dist.all_gather_object(messages, None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise UserError(f"process {rank} of {strategy.world_size} could not build its model: {message}")


def _data_parallel_mesh(strategy: ModelParallelStrategy) -> DeviceMesh:
    """A mesh over all ranks. The mesh of the strategy has a tensor-parallel dimension by default."""
    return init_device_mesh(strategy.root_device.type, (strategy.world_size,), mesh_dim_names=("data_parallel",))
