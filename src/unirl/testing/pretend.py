"""A pretend accelerator: CPU data that claims to be on another device, to test device code where there is no GPU.

Within `pretend_accelerator`, tensors on `device` compute on the CPU and behave as tensors of a CUDA device do: operands
of two devices raise, with CUDA's exceptions (CPU scalars in elementwise operators, CPU index tensors), and so do
generators of another device and `numpy()`. What makes a host wait for a CUDA device is counted.

It needs PyTorch's experimental Python backend for PrivateUse1 (`is_supported`), a slot that each process has once: it
takes the slot for good, under the name "pretend", and with it the place of the process's accelerator. Not imitated:
several devices, streams and `non_blocking` races, memory, autocast, fused kernels (attention counts as the operators
that it consists of), tensors that change their shape in place, `torch.compile`, `from torch import Generator`, and
waits inside CUDA's own kernels, such as those of `torch.multinomial` in some releases.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretend"
_CPU = torch.device("cpu")
_RealGenerator = torch.Generator
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


@dataclass(frozen=True)
class PretendAccelerator:
    """The accelerator within `pretend_accelerator`.

    Args:
        device: Its device.
        counts: What it was asked for so far.
    """

    device: torch.device
    counts: DeviceCounts = field(default_factory=DeviceCounts)

    @contextmanager
    def count(self) -> Iterator[DeviceCounts]:
        """Count what happens within a `with` block; the result is filled when it ends."""
        before, result = (Counter(self.counts.syncs), Counter(self.counts.copies), self.counts.operators), DeviceCounts()
        yield result
        result.syncs, result.copies = self.counts.syncs - before[0], self.counts.copies - before[1]
        result.operators = self.counts.operators - before[2]


_active: list[PretendAccelerator] = []


def is_supported() -> bool:
    """Whether this PyTorch has what the pretend accelerator needs, and no other backend has taken its place."""
    taken = torch._C._get_privateuse1_backend_name()
    return hasattr(torch._C, "_acc") and taken in ("privateuseone", NAME)


@contextmanager
def pretend_accelerator() -> Iterator[PretendAccelerator]:
    """A pretend accelerator within a `with` block.

    Modules that are moved to it keep their parameters' identity. Tensors that outlive the block still compute.

    Raises:
        RuntimeError: `is_supported` is False.

    Example:
        >>> with pretend_accelerator() as accelerator:
        ...     numbers = torch.arange(3, device=accelerator.device)
        ...     total = int(numbers.sum())
        >>> total, sum(accelerator.counts.syncs.values())
        (3, 1)
    """
    if not is_supported():
        raise RuntimeError("the pretend accelerator needs PyTorch's Python backend for PrivateUse1, and this has none")
    _register()
    accelerator, swaps = PretendAccelerator(torch.device(NAME, 0)), torch.__future__.get_swap_module_params_on_conversion()
    _active.append(accelerator)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with ExitStack() as stack:
            stack.enter_context(patch.object(torch, "Generator", _Generator))
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))  # engine threads come before devices
            stack.enter_context(_Operators())
            stack.enter_context(_Functions())
            yield accelerator
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        _active.pop()


class PretendTensor(Tensor):
    """A tensor that claims to be on the pretend device.

    Args:
        data: The CPU tensor that holds its numbers.
    """

    data_on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: Tensor) -> "PretendTensor":  # noqa: D102
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[no-any-return]
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
    def __torch_dispatch__(  # noqa: D105
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.data_on_cpu})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # What is saved is read where there is no such device.
        _count("syncs", "pickle")
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


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Check and count an operator that concerns the device, and compute it on the CPU."""
    traits, given = _traits(func), _tensors((*args, *kwargs.values()))
    on_device = [tensor for tensor in given if isinstance(tensor, PretendTensor)]
    target, to = bool(on_device), kwargs.get("device")
    if to is not None:
        target = _is_pretend(to)
        kwargs = kwargs | {"device": _CPU if target else to}
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
        _count("copies", "index on the CPU", len(indices))
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    written = [tensor for name in traits.writes for tensor in _tensors((named.get(name),))]
    for tensor in elsewhere:
        is_scalar = tensor.ndim == 0 and tensor.device == _CPU and not any(tensor is other for other in written)
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
                _count("copies" if destination else "syncs", "copy to the device" if destination else "copy to the host")
            return
    elif name in _WAITING or _waits_by_arguments(name, args, kwargs):
        _count("syncs", name)
    if _active and not traits.is_view:
        _active[-1].counts.operators += 1


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


def _count(kind: str, what: str, times: int = 1) -> None:
    if _active and times:
        getattr(_active[-1].counts, kind)[f"{what} at {_caller()}"] += times


def _caller() -> str:
    """The line, outside of this file and of libraries, that the current operator comes from."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not any(library in file for library in _LIBRARIES):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among arguments, which may be in lists."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(_map(function, one) for one in value) if type(value) in (list, tuple) else value


def _to_cpu(value: Any) -> Any:
    return _map(lambda t: t.data_on_cpu if isinstance(t, PretendTensor) else t, value)


def _is_pretend(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == NAME


class _Operators(TorchDispatchMode):
    """Finds operators that make tensors on the device from nothing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return _run(func, args, kwargs) if _is_pretend(kwargs.get("device")) else func(*args, **kwargs)


# --- functions that never reach an operator ---


class _Functions(TorchFunctionMode):
    """Functions that PyTorch computes without an operator that could be seen."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and _is_pretend(kwargs.get("device")):
            if isinstance(args[0], PretendTensor):
                return args[0].to(**{name: value for name, value in kwargs.items() if name in ("dtype", "device")})
            with _CPU:
                made = func(*args, **(kwargs | {"device": _CPU}))
            return made.to(kwargs["device"]).requires_grad_(made.requires_grad)
        if isinstance(generator := kwargs.get("generator"), _RealGenerator):  # operators see a copy of it
            _check_generator(generator, args, kwargs.get("device"))
        first = args[0] if args else None
        special = _METHODS.get(func) if isinstance(first, PretendTensor) else None
        return func(*args, **kwargs) if special is None else special(first, *args[1:], **kwargs)


def _check_generator(generator: torch.Generator, args: Sequence[Any], device: Any) -> None:
    target = _is_pretend(device) or any(isinstance(tensor, PretendTensor) for tensor in _tensors(args))
    if isinstance(generator, _PretendGenerator) != target:
        expected = NAME if target else "cpu"
        raise RuntimeError(f"Expected a '{expected}' device type for generator but found '{generator.device.type}'")


def _tolist(tensor: PretendTensor) -> Any:
    _count("syncs", "tolist")
    return tensor.data_on_cpu.tolist()


def _new_tensor(tensor: PretendTensor, data: Any, **options: Any) -> Tensor:
    made = torch.tensor(data, dtype=options.pop("dtype", None) or tensor.dtype, device=_CPU)
    return made.to(options.get("device") or tensor.device)


def _getitem(tensor: PretendTensor, index: Any) -> Tensor:
    with torch._C.DisableTorchFunction():
        return tensor[_index(tensor, index)]


def _setitem(tensor: PretendTensor, index: Any, value: Any) -> None:
    with torch._C.DisableTorchFunction():
        tensor[_index(tensor, index)] = value


def _index(tensor: PretendTensor, index: Any) -> Any:
    """An index whose lists are tensors, which PyTorch would copy to the device unseen."""
    if isinstance(index, tuple):
        return tuple(_index(tensor, part) for part in index)
    return torch.tensor(index, device=_CPU).to(tensor.device) if isinstance(index, list | range) else index


def _numpy(tensor: PretendTensor, **_: Any) -> Any:
    raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first.")


def _set_data(tensor: PretendTensor, value: Any) -> None:
    if not isinstance(value, PretendTensor):
        raise RuntimeError("incompatible tensor type: the pretend accelerator sets data from its own tensors only")
    with torch._C.DisableTorchFunction():
        tensor.data = value
    tensor.data_on_cpu = value.data_on_cpu


_METHODS: dict[Any, Callable[..., Any]] = {
    Tensor.tolist: _tolist,
    Tensor.new_tensor: _new_tensor,
    Tensor.__getitem__: _getitem,
    Tensor.__setitem__: _setitem,
    Tensor.numpy: _numpy,
    Tensor.__array__: _numpy,
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    Tensor.untyped_storage: lambda tensor: tensor.data_on_cpu.untyped_storage(),
}


class _PretendGenerator(_RealGenerator):
    """A CPU generator that claims to be on the device."""

    device = property(lambda self: torch.device(NAME, 0))  # type: ignore[assignment]


class _GeneratorKind(type):
    def __call__(cls, device: Any = "cpu") -> torch.Generator:  # noqa: N805
        return _PretendGenerator() if _is_pretend(device) else _RealGenerator(device)

    def __instancecheck__(cls, instance: object) -> bool:  # noqa: N805
        return isinstance(instance, _RealGenerator)


class _Generator(metaclass=_GeneratorKind):
    """Replaces `torch.Generator`."""


# --- registration ---


class _Module:
    """What PyTorch asks of `torch.pretend`."""

    def is_available(self) -> bool:
        return bool(_active)

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def set_device(self, device: Any) -> None:
        pass

    def synchronize(self, device: Any = None) -> None:
        _count("syncs", "synchronize")

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@cache
def _register() -> None:
    from torch.utils.backend_registration import (  # noqa: PLC0415 - absent from some releases
        _setup_privateuseone_for_python_backend,
    )

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
