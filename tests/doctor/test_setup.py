"""What decides the memory of a device, read from options and from a trainer."""

from types import SimpleNamespace
from typing import Any

import pytest

from unirl.doctor.setup import Setup, setup_of

OPTIONS: dict[str, Any] = {
    "accelerator": "gpu",
    "devices": 8,
    "num_nodes": 1,
    "strategy": "ddp",
    "precision": "bf16-mixed",
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "limit_val_batches": None,
}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Setup("cuda", 8, "DDPStrategy", "bf16-mixed")),
        ({"devices": "8", "num_nodes": 2, "strategy": "fsdp2"}, Setup("cuda", 16, "FSDP2Strategy", "bf16-mixed")),
        ({"devices": "0,3", "strategy": "auto"}, Setup("cuda", 2, "DDPStrategy", "bf16-mixed")),
        ({"devices": "auto", "strategy": "auto"}, Setup("cuda", 1, "SingleDeviceStrategy", "bf16-mixed")),
        ({"devices": [1], "strategy": "auto", "precision": None}, Setup("cuda", 1)),
        ({"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": None}, Setup("cpu", 1)),
        ({"accumulate_grad_batches": 4, "limit_val_batches": 0, "gradient_clip_val": 1}, "accumulates"),
        ({"strategy": SimpleNamespace(class_path="a.b.FSDP2Strategy")}, "shards"),
    ],
)
def test_a_run_that_this_machine_cannot_start(options: dict[str, Any], expected: Setup | str) -> None:
    setup = setup_of(SimpleNamespace(**OPTIONS | options), None)
    if expected == "accumulates":
        assert (setup.accumulates, setup.validates, setup.clip) == (True, False, 1.0)
    elif expected == "shards":
        assert setup.shards
    else:
        assert setup == expected
