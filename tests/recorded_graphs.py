"""CUDA graphs without a GPU: PyTorch's operators are recorded and run again on the same memory.

As in a CUDA graph, nothing runs while it is recorded, and what is no tensor (numbers, shapes) stays as it was then.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from typing_extensions import override

REFUSED = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::lift_fresh")
"""They wait for the device, or copy from the host: no CUDA graph can hold them."""


class RecordedGraph(TorchDispatchMode):
    """The operators of a function, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        dynamic = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        if dynamic or func.name().partition(".")[0] in REFUSED:
            raise RuntimeError(f"{func.name()}: operation not permitted when stream is capturing")
        if func._schema.is_mutable:  # it would change memory now
            written = kwargs["out"] if "out" in kwargs else args[0]
            self.calls.append((func, args, kwargs, None))
            return written
        result = func(*args, **kwargs)
        if not func.is_view:
            self.calls.append((func, args, kwargs, result))
        return result

    def shapes(self) -> list[Any]:
        """Each operator's name and arguments, where a tensor is its type and shape."""
        calls = [(func.name(), args, kwargs) for func, args, kwargs, _ in self.calls]
        return tree_map_only(Tensor, lambda tensor: (tensor.dtype, tensor.shape), calls)

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            if result is None:
                continue
            for old, new in zip(tree_iter(result), tree_iter(again), strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)


class RecordedCapture:
    """Stands in for `CUDACapture`; keeps the graphs for tests to look at."""

    graphs: list[RecordedGraph]
    warm_ups: int

    def __init__(self, device: torch.device) -> None:
        type(self).graphs, type(self).warm_ups = [], 0

    def warm_up(self, function: Callable[[], None]) -> None:
        type(self).warm_ups += 1
        function()

    def capture(self, function: Callable[[], None]) -> RecordedGraph:
        graph = RecordedGraph()
        with graph:
            function()
        type(self).graphs.append(graph)
        return graph
