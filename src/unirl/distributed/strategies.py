"""What Lightning's strategies need to know of a backbone, all of it from its `blocks`."""

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

SHARDED = "fsdp2"


def register() -> None:
    """Make `--trainer.strategy fsdp2` a short name of Lightning's ModelParallelStrategy."""
    if SHARDED not in StrategyRegistry:
        what = "FSDP2: weights, gradients and optimizer states are shared out among all processes"
        StrategyRegistry.register(SHARDED, ModelParallelStrategy, what)


def check(strategy: Strategy) -> None:
    """Refuse what cannot train a backbone.

    FSDP1 and DeepSpeed gather a weight in the forward call of its module, and nowhere else. Drawing and scoring are no
    forward calls, read single weights, and keep keys over many steps.

    Args:
        strategy: The trainer's.

    Raises:
        UserError: one of those.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        name = type(strategy).__name__
        raise UserError(
            f"trainer.strategy: {name} gathers weights in forward calls only, and drawing is none; give {SHARDED!r} "
            "(FSDP2), which shards the same things, or 'ddp' where the model fits on one device"
        )


def build_rank_by_rank(build: Callable[[DeviceMesh | None], None], strategy: Strategy | None) -> None:
    """Build the models of a machine one after another, where each process keeps no more than its share in the end.

    So a machine's memory needs room for one whole model and the shares, not for as many models as it has devices; and
    a backbone needs no second way of loading itself.

    Args:
        build: Builds this process's model, shards it over the mesh that it is given (None: over nothing), and waits
            for no other process.
        strategy: The trainer's. All processes must call it; under other strategies than ModelParallelStrategy every
            process builds at once.

    Raises:
        UserError: another process could not build its own; what this one's `build` raises, it raises here.
    """
    if not isinstance(strategy, ModelParallelStrategy) or not dist.is_initialized():
        build(None)
        return
    mesh = _shared_mesh(strategy)  # before the turns: making it waits for all processes
    for turn in range(strategy.num_processes):
        failure: Exception | None = None
        if turn == strategy.local_rank:
            try:
                build(mesh)
            except Exception as error:
                failure = error
        said: list[str | None] = [None] * strategy.world_size
        dist.all_gather_object(said, None if failure is None else f"{type(failure).__name__}: {failure}")
        if failure is not None:
            raise failure
        for rank, what in enumerate(said):
            if what is not None:
                raise UserError(f"process {rank} of {strategy.world_size} could not build its model: {what}")


def _shared_mesh(strategy: ModelParallelStrategy) -> DeviceMesh:
    """All processes share the weights, whatever the sizes of the strategy's mesh: its default divides single layers."""
    return init_device_mesh(strategy.root_device.type, (strategy.world_size,), mesh_dim_names=("data_parallel",))
