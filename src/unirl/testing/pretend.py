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

from unirl.testing.pretend_tensor import (
    CPU,
    NAME,
    DeviceCounts,
    PretendTensor,
    count,
    is_pretend,
    recording,
    run_operator,
    tensors_in,
)

_RealGenerator = torch.Generator


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
        """Count what happens within a `with` block."""
        counts = DeviceCounts()
        recording.append(counts)
        try:
            yield counts
        finally:
            recording[:] = [one for one in recording if one is not counts]


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
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    accelerator = PretendAccelerator(torch.device(NAME, 0))
    recording.append(accelerator.counts)
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
        recording[:] = [one for one in recording if one is not accelerator.counts]


class _Operators(TorchDispatchMode):
    """Finds operators that make tensors on the device from nothing."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return run_operator(func, args, kwargs) if is_pretend(kwargs.get("device")) else func(*args, **kwargs)


# --- functions that never reach an operator ---


class _Functions(TorchFunctionMode):
    """Functions that PyTorch computes without an operator that could be seen."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and is_pretend(kwargs.get("device")):
            if isinstance(args[0], PretendTensor):
                return args[0].to(**{name: value for name, value in kwargs.items() if name in ("dtype", "device")})
            with CPU:
                made = func(*args, **(kwargs | {"device": CPU}))
            return made.to(kwargs["device"]).requires_grad_(made.requires_grad)
        if isinstance(generator := kwargs.get("generator"), _RealGenerator):  # operators see a copy of it
            _check_generator(generator, args, kwargs.get("device"))
        first = args[0] if args else None
        special = _METHODS.get(func) if isinstance(first, PretendTensor) else None
        return func(*args, **kwargs) if special is None else special(first, *args[1:], **kwargs)


def _check_generator(generator: torch.Generator, args: Sequence[Any], device: Any) -> None:
    target = is_pretend(device) or any(isinstance(tensor, PretendTensor) for tensor in tensors_in(args))
    if isinstance(generator, _PretendGenerator) != target:
        expected = NAME if target else "cpu"
        raise RuntimeError(f"Expected a '{expected}' device type for generator but found '{generator.device.type}'")


def _tolist(tensor: PretendTensor) -> Any:
    count("syncs", "tolist")
    return tensor.data_on_cpu.tolist()


def _new_tensor(tensor: PretendTensor, data: Any, **options: Any) -> Tensor:
    made = torch.tensor(data, dtype=options.pop("dtype", None) or tensor.dtype, device=CPU)
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
    return torch.tensor(index, device=CPU).to(tensor.device) if isinstance(index, list | range) else index


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

    device = property(lambda self: torch.device(NAME, 0))


class _GeneratorKind(type):
    def __call__(cls, device: Any = "cpu") -> torch.Generator:
        return _PretendGenerator() if is_pretend(device) else _RealGenerator(device)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _RealGenerator)


class _Generator(metaclass=_GeneratorKind):
    """Replaces `torch.Generator`."""


# --- registration ---


class _Module:
    """What PyTorch asks of `torch.pretend`: no device outside of `pretend_accelerator`."""

    def is_available(self) -> bool:
        return bool(recording)

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return int(self.is_available())

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()  # tensors on the device draw from the CPU's default generator

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def set_device(self, device: Any) -> None:
        pass

    def synchronize(self, device: Any = None) -> None:
        count("syncs", "synchronize")

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
