"""Lightning strategies: the name `fsdp2`, which strategies are supported, and building models under them."""

from collections.abc import Callable

import torch.distributed as dist
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
    StrategyRegistry,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from unirl.errors import UserError

FSDP2 = "fsdp2"


def register() -> None:
    """Register `fsdp2` as a name of Lightning's ModelParallelStrategy, for `--trainer.strategy fsdp2`."""
    if FSDP2 not in StrategyRegistry:
        description = "FSDP2: weights, gradients and optimizer states are sharded over all processes"
        StrategyRegistry.register(FSDP2, ModelParallelStrategy, description)


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
