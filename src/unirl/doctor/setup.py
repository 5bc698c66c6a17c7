"""The options under `trainer` that decide the memory of a device."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

SHARDING = ("FSDP2Strategy", "ModelParallelStrategy")


@dataclass(frozen=True)
class Setup:
    """What decides the memory of a device, of the options under `trainer`.

    Args:
        accelerator: "cuda" or "cpu".
        devices: Number of devices over all nodes.
        strategy: Name of the class of the strategy.
        precision: As Lightning writes it, such as "bf16-mixed".
        accumulates: Whether gradients of several batches are added up.
        validates: Whether there is a validation.
        clip: Largest norm of the gradient; None does not clip.
        bucket_views: Whether DDP keeps gradients in its buckets only (`gradient_as_bucket_view`).
        offload: Whether FSDP2 keeps the shards of the model on the CPU, and those of a reference.
    """

    accelerator: str = "cuda"
    devices: int = 1
    strategy: str = "SingleDeviceStrategy"
    precision: str = "32-true"
    accumulates: bool = False
    validates: bool = True
    clip: float | None = None
    bucket_views: bool = False
    offload: tuple[bool, bool] = (False, False)

    @property
    def shards(self) -> bool:
        """Whether weights are sharded."""
        return self.strategy in SHARDING


def setup_of(options: Any, trainer: Trainer | None) -> Setup:
    """What decides the memory of a device.

    Args:
        options: Those under `trainer`, parsed.
        trainer: Made of them; None where this machine lacks the devices.
    """
    clip = options.gradient_clip_val
    shared: dict[str, Any] = {
        "accumulates": (options.accumulate_grad_batches or 1) > 1,
        "validates": options.limit_val_batches != 0,
        "clip": None if clip is None else float(clip),
    }
    if trainer is None:
        return Setup(*_without_trainer(options), **shared)
    strategy = trainer.strategy
    return Setup(
        strategy.root_device.type,
        trainer.num_devices * trainer.num_nodes,
        type(strategy).__name__,
        str(trainer.precision),
        bucket_views=bool(getattr(strategy, "_ddp_kwargs", {}).get("gradient_as_bucket_view")),
        offload=(getattr(strategy, "offload", False), getattr(strategy, "offload_reference", False)),
        **shared,
    )


def _without_trainer(options: Any) -> tuple[str, int, str, str]:
    """Accelerator, devices, strategy and precision of a run that this machine cannot start."""
    devices = options.devices
    if isinstance(devices, str):
        devices = [part for part in devices.split(",") if part] if "," in devices else devices
    per_node = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1
    count = max(1, per_node) * (options.num_nodes or 1)
    strategy = options.strategy if isinstance(options.strategy, str) else options.strategy.class_path.rpartition(".")[2]
    if strategy == "auto":
        strategy = "ddp" if count > 1 else "SingleDeviceStrategy"
    if strategy.startswith("ddp"):
        strategy = "DDPStrategy"
    strategy = "FSDP2Strategy" if strategy in ("fsdp", "fsdp2") else strategy
    return "cpu" if options.accelerator == "cpu" else "cuda", count, strategy, str(options.precision or "32-true")
