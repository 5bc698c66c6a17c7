"""Adding up the memory of all tensors while a program runs."""

import gc
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from typing_extensions import override

ALIGNMENT = 512
"""Bytes to which PyTorch's allocator of CUDA memory rounds up."""


class MemoryTracker(TorchDispatchMode):
    """Adds up the storages of all tensors that operators read or return, for as long as they exist.

    Every tensor counts once, whoever holds it: a module, an optimizer, autograd, a cache. What a kernel takes for
    itself while it runs is not seen.

    Args:
        device: The type of the devices that count, such as "cpu".

    Attributes:
        phase: Name under which peaks are recorded from now on.
        live: Bytes at this moment.
        peaks: Largest value of `live` in each phase.

    Example:
        >>> with MemoryTracker() as memory:
        ...     total = (torch.ones(1024) + torch.ones(1024)).sum()
        >>> memory.live, memory.peaks["run"]
        (512, 12288)
    """

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.device, self.phase = device, "run"
        self.live = 0
        self.peaks: dict[str, int] = {}
        self._seen: dict[int, tuple[weakref.ref[Any], int]] = {}

    @override
    def __enter__(self) -> "MemoryTracker":
        # FSDP frees and allocates gathered weights by resizing storages, which is no operator.
        self._resize, tracker = torch.UntypedStorage.resize_, self

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            result = tracker._resize(storage, size)
            tracker.update(storage)
            return result

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    @override
    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*exception)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and each call would cost more

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # more than half of all calls
        result = func(*args, **(kwargs or {}))
        for value in (*args, result):
            if isinstance(value, Tensor):
                self.count(value)
            elif isinstance(value, list | tuple):
                self.count_all(value)
        return result

    def count_all(self, values: Iterable[object]) -> None:
        """Count the tensors among some values."""
        for value in values:
            if isinstance(value, Tensor):
                self.count(value)

    def count(self, tensor: Tensor) -> None:
        """Count the storage of a tensor from now on, if it is not counted yet."""
        if is_traceable_wrapper_subclass(tensor):  # such as a DTensor, which has no memory of its own
            self.count_all(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
            return
        storage = tensor.untyped_storage()
        # Asking a fake tensor for its device takes as long as an operator.
        if id(storage) in self._seen or tensor.device.type == self.device:
            self.update(storage, known_only=False)

    def update(self, storage: torch.UntypedStorage, known_only: bool = True) -> None:
        """Count the size of a storage as it is now.

        Args:
            storage: Of a tensor on the device.
            known_only: Whether one that was not counted before is left out.
        """
        key, size = id(storage), -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        if key not in self._seen and known_only:
            return
        reference, before = self._seen.get(key, (None, 0))
        if reference is not None and before == size:
            return
        self._seen[key] = reference or weakref.ref(storage, lambda _: self._forget(key)), size
        self.live += size - before
        self.peaks[self.phase] = max(self.live, self.peaks.get(self.phase, 0))

    def _forget(self, key: int) -> None:
        self.live -= self._seen.pop(key)[1]

    def start(self, phase: str) -> str:
        """Begin a phase, and return the one before it."""
        gc.collect()  # what only a cycle refers to
        before, self.phase = self.phase, phase
        self.peaks[phase] = max(self.live, self.peaks.get(phase, 0))
        return before
