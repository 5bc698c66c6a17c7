"""Plugins on the pretend accelerator, for the conformance classes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from unirl.testing.comparison import find_modules
from unirl.testing.pretend import PretendAccelerator, is_supported, pretend_accelerator

ADVICE = "make every tensor on the device of the weights or inputs, and register constant ones as buffers"


@contextmanager
def on_pretend_device(*values: object) -> Iterator[PretendAccelerator]:
    """Within a `with` block, the modules that some objects are or hold are on a pretend accelerator.

    Where this PyTorch has no such thing, the test is skipped.

    Args:
        values: Backbones, rewards, update rules or judges.

    Example:
        >>> from torch import nn
        >>> with on_pretend_device({"model": nn.Linear(1, 1)}) as accelerator:
        ...     accelerator.device
        device(type='pretend', index=0)
    """
    if not is_supported():
        pytest.skip("this PyTorch has no Python backend for PrivateUse1")
    modules = [module for value in values for module in find_modules(value)]
    with pretend_accelerator() as accelerator:
        for module in modules:
            module.to(accelerator.device)
        try:
            yield accelerator
        finally:
            for module in modules:
                module.cpu()
