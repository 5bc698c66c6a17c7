"""Tensors that compute on the CPU and behave as those of another device: what `pretend_accelerator` is made of."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

NAME = "pretend"
CPU = torch.device("cpu")
_OWN_FILES = (__file__, str(Path(__file__).with_name("pretend.py")))
_LIBRARIES = tuple(f"/{name}/" for name in ("torch", "transformers", "peft", "torchmetrics", "lightning", "timm"))


@dataclass
class DeviceCounts:
    """What a device was asked for.

    Args:
        syncs: How often the host waited for a result, by operator and line: `item`, `tolist`, `bool`, `cpu`, `nonzero`,
            boolean masks as indices.
        copies: Blocking copies from host to device, by operator and line. CUDA waits for them, too.
        operators: Operators that computed something; views and copies from and to the host are not among them.
    """

    syncs: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    operators: int = 0

    @property
    def waits(self) -> Counter[str]:
        """Synchronizations and copies together: what keeps the host from running ahead."""
        return self.syncs + self.copies


recording: list[DeviceCounts] = []
"""The counts that are filled at the moment."""


class PretendTensor(Tensor):
    """A tensor that claims to be on the pretend device.

    Args:
        data: The CPU tensor that holds its numbers.
    """

    data_on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, data: Tensor) -> "PretendTensor":  # noqa: D102
        return torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, data: Tensor) -> None:
        self.data_on_cpu = data

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run_operator(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.data_on_cpu})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # What is saved is read where there is no such device.
        count("syncs", "pickle")
        return self.data_on_cpu.__reduce_ex__(protocol)


# --- operators ---

_WAITING = {
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim"),
    *("unique_consecutive", "_linalg_check_errors"),
}
"""Operators whose result the host reads, or whose shape depends on values."""
_COPYING = {"copy_", "_to_copy", "_copy_from"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_TAKES_CPU_SCALARS = {"masked_fill", "masked_fill_", "fill_", "fill", "where", *_INDEXING}


@dataclass(frozen=True)
class _Traits:
    """What is known about an operator from its schema."""

    name: str
    takes_cpu_scalars: bool
    is_view: bool
    writes: tuple[str, ...]


@cache
def _traits(func: Any) -> _Traits:
    schema, name = func._schema, func._schema.name.partition("::")[2]
    writes = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    scalars = torch.Tag.pointwise in func.tags or name in _TAKES_CPU_SCALARS or name.startswith("_foreach")
    return _Traits(name, scalars, func.is_view or name in ("detach", "alias", "lift_fresh", "_unsafe_view"), writes)


def run_operator(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Check and count an operator that concerns the device, and compute it on the CPU.

    Raises:
        RuntimeError: its operands are on two devices.
    """
    traits, given = _traits(func), tensors_in((*args, *kwargs.values()))
    on_device = [tensor for tensor in given if isinstance(tensor, PretendTensor)]
    target, to = bool(on_device), kwargs.get("device")
    if to is not None:
        target = is_pretend(to)
        kwargs = kwargs | {"device": CPU if target else to}
    if on_device:
        _check_operands(func, traits, given, args, kwargs)
    _count_operator(traits, given, args, kwargs, target)
    output = func(*(_to_cpu(a) for a in args), **{name: _to_cpu(value) for name, value in kwargs.items()})
    if not target and not (traits.writes and on_device):
        return output
    owners = {id(tensor.data_on_cpu): tensor for tensor in on_device} if traits.writes else {}
    for tensor in on_device if traits.writes else ():
        if tensor.shape != tensor.data_on_cpu.shape:
            raise RuntimeError(f"{traits.name} changes a tensor's shape in place, which a pretend accelerator cannot")
    return _map(lambda t: owners.get(id(t)) if id(t) in owners else PretendTensor(t), output)


def _check_operands(
    func: Any, traits: _Traits, given: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse operands of two devices, as CUDA does."""
    if traits.name in _COPYING:
        return
    elsewhere = [tensor for tensor in given if not isinstance(tensor, PretendTensor)]
    if traits.name in _INDEXING and isinstance(args[0], PretendTensor):  # CPU indices may be used on any device
        indices = [tensor for tensor in elsewhere if any(tensor is index for index in args[1])]
        elsewhere = [tensor for tensor in elsewhere if not any(tensor is index for index in indices)]
        count("copies", "index on the CPU", len(indices))
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    written = [tensor for name in traits.writes for tensor in tensors_in((named.get(name),))]
    for tensor in elsewhere:
        is_scalar = tensor.ndim == 0 and tensor.device == CPU and not any(tensor is other for other in written)
        if not (is_scalar and traits.takes_cpu_scalars):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and "
                f"{tensor.device}! ({func}, a tensor of shape {tuple(tensor.shape)})"
            )


def _count_operator(
    traits: _Traits, given: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any], target: bool
) -> None:
    name = traits.name
    if name in _COPYING:
        source, destination = (args[1], isinstance(args[0], PretendTensor)) if name == "copy_" else (args[0], target)
        blocking = not kwargs.get("non_blocking", len(args) > 2 and args[2])
        if isinstance(source, PretendTensor) != destination:
            if blocking:
                count("copies" if destination else "syncs", "copy to the device" if destination else "copy to the host")
            return
    elif name in _WAITING or _waits_by_arguments(name, args, kwargs):
        count("syncs", name)
    if not traits.is_view:
        for counts in recording:
            counts.operators += 1


def _waits_by_arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if name in _INDEXING:  # by mask: their number depends on values, but one value may fill them
        masks = any(isinstance(index, PretendTensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        fills = name != "index" and args[2].numel() == 1 and not (len(args) > 3 and args[3])
        return masks and not fills
    if name == "isin":  # with many values it sorts them, and keeps each once
        values, among = (x.numel() if isinstance(x, Tensor) else 1 for x in args[:2])
        return among >= 10 * values**0.145
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None and isinstance(args[-1], Tensor)
    return False


def count(kind: Literal["syncs", "copies"], what: str, times: int = 1) -> None:
    """Count something that the host waits for, with the line that it comes from."""
    where = f"{what} at {_caller()}" if times and recording else ""
    for counts in recording if where else ():
        getattr(counts, kind)[where] += times


def _caller() -> str:
    """The line, outside of this file and of libraries, that the current operator comes from."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file not in _OWN_FILES and not any(library in file for library in _LIBRARIES):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, which may be in lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(_map(function, one) for one in value) if type(value) in (list, tuple) else value


def _to_cpu(value: Any) -> Any:
    return _map(lambda t: t.data_on_cpu if isinstance(t, PretendTensor) else t, value)


def is_pretend(device: Any) -> bool:
    """Whether an argument `device` is the pretend one."""
    return device is not None and not isinstance(device, int) and torch.device(device).type == NAME
