"""Is there what the trainer asks for, and can it compute in that precision?"""

import os

import torch
from lightning.pytorch import Trainer

from unirl.doctor.findings import Finding

HALF = ("bf16", "16")


def check_devices(trainer: Trainer) -> list[Finding]:
    """Devices and precision of a trainer that could be made; making it has failed where devices are not there.

    Args:
        trainer: As `fit` makes it; nothing is launched.
    """
    kind, count, nodes = trainer.strategy.root_device.type, trainer.num_devices, trainer.num_nodes
    strategy = type(trainer.strategy).__name__.removesuffix("Strategy")
    where = f"{count} {kind} on each of {nodes} nodes" if nodes > 1 else f"{count} {kind}"
    findings = [Finding("ok", "devices", f"{where}, strategy {strategy}")]
    cores = os.cpu_count() or 1
    if kind == "cpu" and count > cores:
        text = f"{count} processes on {cores} CPU cores"
        findings.append(Finding("warning", "devices", text, f"--trainer.devices {cores} or fewer will be faster"))
    if kind == "cpu" and torch.cuda.is_available():
        text = "training on the CPU, and there is a GPU"
        findings.append(Finding("warning", "devices", text, "--trainer.accelerator gpu uses it"))
    return [*findings, _precision(str(trainer.precision), kind)]


def there() -> str:
    """What this machine has, and how to ask for it."""
    gpus = torch.cuda.device_count()
    if not gpus:
        cores = os.cpu_count()
        return f"here are {cores} CPU cores and no GPU: --trainer.accelerator cpu --trainer.devices 1"
    return f"here are {gpus} GPUs: --trainer.accelerator gpu --trainer.devices {gpus} or fewer"


def _precision(precision: str, kind: str) -> Finding:
    if kind == "cpu" and precision.startswith(HALF):
        text = f"{precision} on a CPU: slower than float32 on most, and rounded"
        return Finding("warning", "precision", text, "--trainer.precision 32-true")
    if kind == "cuda" and precision.startswith("bf16") and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        return Finding("warning", "precision", f"{name} only emulates {precision}", "--trainer.precision 16-mixed")
    return Finding("ok", "precision", precision)
