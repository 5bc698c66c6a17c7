"""Tensors that plugins return: whether they are what the contract says, so that nothing of them is lost in silence."""

import torch
from torch import Tensor

_NOT_PLAIN = ("torch.masked", "torch.distributed")
"""Modules whose tensors have values that are missing, or on another process."""


def find_mismatch(
    value: object, shape: tuple[int, ...], device: torch.device | None = None, is_bool: bool = False
) -> str | None:
    """How a value differs from a dense tensor of real numbers, for an error message; None where it is one.

    Args:
        value: What a plugin returned.
        shape: The expected shape; () for a single number.
        device: Where it must be; None anywhere.
        is_bool: Whether it must be of type bool.

    Returns:
        What was got, and what is expected.

    Example:
        >>> find_mismatch(torch.ones(3, dtype=torch.complex64), (3,))
        'complex numbers (torch.complex64), expected real ones: take .real, .abs() or .angle()'
        >>> find_mismatch([1.0, 2.0], (2,)), find_mismatch(torch.ones(2), (2,))
        ('list, expected a tensor of 2 numbers', None)
    """
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}, expected {_describe_shape(shape, is_bool)}"
    return _find_storage(value) or _find_form(value, shape, device, is_bool)


def plain(value: Tensor) -> Tensor:
    """A tensor as one of PyTorch's own class, without gradient and in memory of its own.

    A plugin may return its own buffer, and write into it later.

    Args:
        value: Without a mismatch.

    Example:
        >>> type(plain(torch.nn.Parameter(torch.ones(1)))).__name__
        'Tensor'
    """
    value = value.detach().clone()
    has_own_memory = type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return value if has_own_memory else value.as_subclass(Tensor)


def _find_storage(value: Tensor) -> str | None:
    """What is not dense in a tensor. Its other properties cannot all be asked for then."""
    if type(value).__module__.startswith(_NOT_PLAIN):
        return f"a {type(value).__name__}, expected a plain tensor with all values of this process"
    if value.is_nested:
        return "a nested tensor, expected one number in each place: take torch.nested.to_padded_tensor"
    if value.layout != torch.strided:
        return f"a sparse tensor ({value.layout}), expected a dense one: take .to_dense()"
    if value.is_quantized:
        return f"a quantized tensor ({value.dtype}), expected numbers: take .dequantize()"
    return None


def _find_form(value: Tensor, shape: tuple[int, ...], device: torch.device | None, is_bool: bool) -> str | None:
    if value.shape != shape:
        what = "a single number" if not shape else "one number for each sample"
        return f"shape {tuple(value.shape)}, expected {shape}: {what}"
    if device is not None and value.device != device:
        return f"a tensor on {value.device}, expected {device}"
    if value.is_complex():
        return f"complex numbers ({value.dtype}), expected real ones: take .real, .abs() or .angle()"
    if is_bool and value.dtype != torch.bool:
        return f"{value.dtype}, expected torch.bool: compare with a threshold"
    return None


def _describe_shape(shape: tuple[int, ...], is_bool: bool) -> str:
    return f"a tensor of {shape[0]} {'booleans' if is_bool else 'numbers'}" if shape else "a tensor of a single number"
