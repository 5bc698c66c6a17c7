"""Sharded checkpoints, as Lightning's FSDP and ModelParallel strategies write them: read by one process, on the CPU."""

import io
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

META = "meta.pt"
"""Lightning's file for what is not sharded; written last."""
INDEX = ".metadata"
"""PyTorch's file that says where each tensor is. A pickle."""
PATHS = {
    (f"pathlib{where}", f"{kind}Path"): pure
    for where in ("", "._local")
    for kind, pure in (("Posix", PurePosixPath), ("Windows", PureWindowsPath))
}
"""How an index names the folder that it was written to, and what is read instead: a name that opens nothing."""
SOURCES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")


def is_sharded(path: Path) -> bool:
    """Whether a folder holds a sharded checkpoint."""
    return (path / META).is_file() and (path / INDEX).is_file()


class _IndexReader(pickle.Unpickler):
    """Knows the few classes that an index is made of, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PATHS:
            return PATHS[module, name]
        found = super().find_class(module, name) if module in ("torch", *SOURCES) else None
        if isinstance(found, torch.dtype) or found is torch.Size:
            return found
        if isinstance(found, type) and found.__module__ == module and not issubclass(found, io.IOBase):
            return found
        if (module, name) in (("torch.serialization", "_get_layout"), ("collections", "OrderedDict")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{INDEX} holds more than data: {module}.{name}; nothing of it was run")


def index(path: Path) -> Metadata:
    """Where each tensor of a sharded checkpoint is.

    Raises:
        pickle.UnpicklingError: it holds more than that.
    """
    with (path / INDEX).open("rb") as file:
        found = _IndexReader(file).load()
    if not isinstance(found, Metadata):
        raise pickle.UnpicklingError(f"{INDEX} holds {type(found).__name__}")
    return found


def items(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each piece of a sharded checkpoint by its file and name; every piece is an archive of its own."""
    for key, place in index(path).storage_data.items():
        with (path / place.relative_path).open("rb") as file:
            file.seek(place.offset)
            yield f"{place.relative_path}: {key.fqn}", file.read(place.length)


def sharded_weights(path: Path) -> dict[str, Tensor]:
    """The module's tensors, whole, by name.

    Args:
        path: Of a checkpoint that `fault` finds nothing wrong with.
    """
    found = index(path).state_dict_metadata
    prefix = "state_dict." if any(name.startswith("state_dict.") for name in found) else "model."  # FSDP2, FSDP1
    weights = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in found.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.load(weights, storage_reader=dcp.FileSystemReader(path))
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
