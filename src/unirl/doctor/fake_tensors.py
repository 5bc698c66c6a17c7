"""Running a program on fake tensors, which have sizes and no contents, so that any model fits any machine.

Small contents decide what a program computes: masks, token ids, rewards. They are computed beside the fake tensors, and
made up where they depend on large ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves, tree_map_only
from typing_extensions import override

aten = torch.ops.aten
LARGEST = 2**18
"""Elements of the largest tensor whose contents are computed."""
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""Operators that take boolean masks as indices."""
DYNAMIC = (aten.nonzero.default, aten.masked_select.default)
"""Operators whose result has a size that depends on contents; others are noticed when they fail."""
SIZE_ONLY = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
"""Operators that read nothing of a tensor but its size and type."""
FLOAT32_ON_CUDA = (
    "layer_norm",
    "group_norm",
    "exp",
    "log",
    "rsqrt",
    "reciprocal",
    "pow.Tensor_Scalar",
    "softplus",
    "logsumexp",
)
"""Operators whose inputs autocast makes float32 on CUDA and not on a CPU."""
FLOAT32_RESULT_ON_CUDA = ("softmax.int", "log_softmax.int", "cumsum", "prod", "sum", "sum.dim_IntList")
"""Operators that autocast tells to compute in float32 on CUDA and not on a CPU."""


@contextmanager
def fake_tensors(cuda: bool = False) -> Iterator[None]:
    """Make every new tensor fake in a `with` block.

    They claim to be on the CPU: without a GPU, autograd refuses fake tensors on CUDA.

    Args:
        cuda: Compute under autocast in the types of CUDA.
    """
    original = nn.Module._apply
    nn.Module._apply = _apply  # type: ignore[method-assign]
    try:
        autocast = _autocast_as_on_cuda() if cuda else nullcontext()
        with autocast, FakeTensorMode(allow_non_fake_inputs=True), KnownContents(), _Functions():
            yield
    finally:
        nn.Module._apply = original  # type: ignore[method-assign]


def make_fake(module: nn.Module) -> None:
    """Replace the parameters and buffers of a module by fake tensors, in place; within `fake_tensors`.

    Args:
        module: On any device, the meta device included.
    """
    made: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        return made[id(tensor)]

    originals = [*module.parameters(), *module.buffers()]  # keeps their ids apart until the end
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)  # type: ignore[assignment]
    del originals


def _apply(module: nn.Module, convert: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`, which `to` and its like call. PyTorch's fails on fake tensors with weak references."""
    for part in module.modules() if recurse else [module]:
        for name, tensor in [*part._parameters.items()]:
            if (
                tensor is not None
                and not is_traceable_wrapper_subclass(tensor)
                and (converted := convert(tensor.detach())).dtype != tensor.dtype
            ):
                part._parameters[name] = nn.Parameter(converted, tensor.requires_grad)
        for name, buffer in [*part._buffers.items()]:
            part._buffers[name] = None if buffer is None else convert(buffer)
    return module


class KnownContents(TorchDispatchMode):
    """Computes the contents of small fake tensors whose inputs are known. Use it within `FakeTensorMode`.

    Where a program reads other contents, integers are 0, masks are True everywhere and floats are 1: every sample
    counts, and no answer ends early.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and each call would cost more

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is aten._local_scalar_dense.default:
            with unset_fake_temporarily():
                return _contents(args[0]).item()
        if func in INDEXING:
            args = (args[0], _without_masks(args[1]), *args[2:])
        if func in DYNAMIC:
            return tree_map_only(Tensor, _faked, _compute(func, args, options))
        try:
            result = func(*args, **({**options, "generator": None} if "generator" in options else options))
        except (DataDependentOutputException, DynamicOutputShapeException):
            return tree_map_only(Tensor, _faked, _compute(func, args, options))
        outputs = _tensors(result) if result is not None else _overwritten(func, args)
        if outputs and all(output.numel() <= LARGEST for output in outputs):
            _follow(func, args, options, outputs)
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _overwritten(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """The arguments that an operator writes to."""
    written = [arg for arg, info in zip(args, func._schema.arguments, strict=False) if info.is_write]
    return _tensors(written)


def _follow(func: Any, args: tuple[Any, ...], options: dict[str, Any], outputs: Sequence[Tensor]) -> None:
    """Remember the contents of small outputs, where they can be computed."""
    name = func.overloadpacket.__name__
    if "empty" in name:
        return
    if name in SIZE_ONLY or all(_is_known(value) for value in _tensors((args, options))):
        values = _compute(func, args, options)
        for output, value in zip(outputs, _tensors(values), strict=False):  # none where it returns nothing
            _remember(output, value)
    elif name == "gather":  # log-probabilities of samples: any, as long as they stay the same
        with unset_fake_temporarily():
            _remember(outputs[0], torch.rand(outputs[0].shape, dtype=torch.float32).to(outputs[0].dtype))
    elif func._schema.is_mutable:
        for output in outputs:
            if (known := getattr(output, "known", None)) is not None:
                known.untyped_storage().overwritten = True  # what other views know of it is out of date, too


def _compute(func: Any, args: Any, options: Any) -> Any:
    """What an operator returns for the contents of its inputs."""
    with unset_fake_temporarily():
        args, options = tree_map_only(Tensor, _contents, (args, options))
        return func(*args, **options)


def _contents(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, FakeTensor):
        return tensor
    if (known := _known(tensor)) is not None:
        return known
    return torch.full(tensor.shape, 0 if _is_integer(tensor) else 1, dtype=tensor.dtype)


def _known(tensor: Tensor) -> Tensor | None:
    known: Tensor | None = getattr(tensor, "known", None)
    return None if known is None or hasattr(known.untyped_storage(), "overwritten") else known


def _is_known(tensor: Tensor) -> bool:
    if tensor.numel() > LARGEST:
        return False
    if isinstance(tensor, FakeTensor):
        return _known(tensor) is not None or _is_integer(tensor)
    return type(tensor) in (Tensor, nn.Parameter)  # other classes have tensors inside


def _is_integer(tensor: Tensor) -> bool:
    return not (tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool)


def _remember(tensor: Tensor, value: Tensor) -> None:
    if isinstance(tensor, FakeTensor):
        tensor.known = value  # type: ignore[attr-defined]


def _faked(value: Tensor) -> Tensor:
    fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    _remember(fake, value)
    return fake


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with each boolean mask replaced by the positions where it is True."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            with unset_fake_temporarily():
                positions = _contents(index).nonzero(as_tuple=True)
            found += [_faked(position) for position in positions]
        else:
            found.append(index)
    return found


class _Functions(TorchFunctionMode):
    """Functions that read a tensor's memory without asking an operator."""

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.tolist:
            with unset_fake_temporarily():
                return _contents(args[0]).tolist()
        if func is Tensor.__deepcopy__ and isinstance(args[0], FakeTensor):
            return args[1].setdefault(id(args[0]), _copy(args[0]))
        return func(*args, **(kwargs or {}))


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


@contextmanager
def _autocast_as_on_cuda() -> Iterator[None]:
    """Let autocast on the CPU compute the operators in float32 that it computes in float32 on CUDA."""
    library = torch.library.Library("aten", "IMPL", "AutocastCPU")
    for names, options in ((FLOAT32_ON_CUDA, {}), (FLOAT32_RESULT_ON_CUDA, {"dtype": torch.float32})):
        for name in names:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(aten, packet), overload or "default")
            library.impl(operator, partial(_in_float32, operator, options))
    try:
        yield
    finally:
        library._destroy()


def _in_float32(operator: Any, options: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    with torch.autocast("cpu", enabled=False):
        if not isinstance(args[0], Tensor) or args[0].dtype not in (torch.bfloat16, torch.float16):
            return operator(*args, **kwargs)
        if options:
            return operator(*args, **{**kwargs, **{k: v for k, v in options.items() if kwargs.get(k) is None}})
        return operator(*tree_map_only(Tensor, _to_float32, args), **kwargs)


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
