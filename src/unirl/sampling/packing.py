"""Linear layers that multiply by weights packed beforehand, where nothing is learnt from the result."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 2**19
"""Weights from which a layer is packed: about what a core keeps at hand. Smaller ones are laid out in no time."""

_TRIED = [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]], [[1.0, 2.0, 4.0], [8.0, 5.0, 7.0]], [1.0, 2.0]
"""Rows, weights and bias of a product."""


@contextmanager
def packed(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """While it lasts, linear layers of a model on a CPU pack their weights once, instead of at every product.

    A product of few rows spends more time on laying out the weights than on multiplying by them, and a drawing makes
    hundreds of them by the same weights. Results differ in rounding. A layer is packed when it is first needed; packed
    layers hold their weights twice until the end. Where gradients are kept, on other devices, under autocast and for
    small layers and those of other types (adapters, quantised ones), nothing changes.

    Args:
        model: Its weights must not change, and it must not be copied, meanwhile.
        wanted: False does nothing; for what is compiled.

    Example:
        >>> layer, rows = nn.Linear(512, 1024), torch.randn(64, 512)
        >>> with torch.no_grad(), packed(layer):
        ...     torch.allclose(layer(rows), F.linear(rows, layer.weight, layer.bias), atol=1e-5)
        True
    """
    layers = [layer for layer in packable(model) if _can_be(layer)] if wanted else []
    layers = layers if layers and available() else []
    for layer in layers:
        layer.__dict__["forward"] = _Packed(layer)  # found before that of the class
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def packable(model: nn.Module) -> list[nn.Linear]:
    """The layers that `packed` packs if they are on a CPU in float32: large ones, and plain ones."""
    return [part for part in model.modules() if type(part) is nn.Linear and part.weight.numel() >= LARGE]


@cache
def available() -> bool:
    """Whether this PyTorch has oneDNN's packed products; what is tried is what `packed` calls."""
    rows, weight, bias = (torch.tensor(given, dtype=torch.float32, device="cpu") for given in _TRIED)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return bool(torch.allclose(_times(rows, _pack(weight, 2), bias), F.linear(rows, weight, bias), atol=1e-5))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):  # private to PyTorch: it may go
        return False


class _Packed:
    """What a linear layer computes."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight, layer.bias
        self.packed: Tensor | None = None

    def __call__(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or input.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.linear(input, self.weight, self.bias)
        if self.packed is None:
            self.packed = _pack(self.weight, input.numel() // input.shape[-1])
        return _times(input, self.packed, self.bias)


def _can_be(layer: nn.Linear) -> bool:
    weight = layer.weight
    alike = type(weight) is nn.Parameter and weight.device.type == "cpu" and weight.dtype == torch.float32
    return alike and "forward" not in layer.__dict__


def _pack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return packed


def _times(given: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(given, packed, bias, "none", [], "")
    return product
