"""Sharded checkpoints, as Lightning's FSDP and ModelParallel strategies write them, read by one process on the CPU."""

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
"""Lightning's file with everything that is not sharded. It is written last."""
METADATA = ".metadata"
"""PyTorch's pickle that maps each tensor to its file."""
PATH_CLASSES = {
    (f"pathlib{module}", f"{kind}Path"): pure
    for module in ("", "._local")
    for kind, pure in (("Posix", PurePosixPath), ("Windows", PureWindowsPath))
}
"""Classes of the paths in the metadata, and the pure paths that are loaded in their place."""
METADATA_MODULES = ("torch", "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
OTHER_GLOBALS = (("torch.serialization", "_get_layout"), ("collections", "OrderedDict"))


def is_sharded_checkpoint(path: Path) -> bool:
    """Whether a folder holds a sharded checkpoint."""
    return (path / META).is_file() and (path / METADATA).is_file()


def read_metadata(path: Path) -> Metadata:
    """The metadata of a sharded checkpoint, without running code that it may hold.

    Raises:
        pickle.UnpicklingError: it holds more than metadata.
    """
    with (path / METADATA).open("rb") as file:
        metadata = _MetadataUnpickler(file).load()
    if not isinstance(metadata, Metadata):
        raise pickle.UnpicklingError(f"{METADATA} holds {type(metadata).__name__}")
    return metadata


def iter_shards(path: Path) -> Iterator[tuple[str, bytes]]:
    """Each entry of a sharded checkpoint: its file and name, and its bytes, which are a zip archive."""
    for key, storage in read_metadata(path).storage_data.items():
        with (path / storage.relative_path).open("rb") as file:
            file.seek(storage.offset)
            yield f"{storage.relative_path}: {key.fqn}", file.read(storage.length)


def tensor_sizes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of the LightningModule, by name. None is read.

    Args:
        path: The folder.
    """
    return {name.removeprefix(prefix): tuple(entry.size) for prefix, name, entry in _entries(path)}


def sharded_weights(path: Path) -> dict[str, Tensor]:
    """The full tensors of the LightningModule, by name.

    Args:
        path: A checkpoint in which `find_corruption` finds nothing.
    """
    entries = list(_entries(path))
    weights = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for _, name, entry in entries}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.load(weights, storage_reader=dcp.FileSystemReader(path))
    return {name.removeprefix(prefix): weights[name] for prefix, name, _ in entries}


def _entries(path: Path) -> Iterator[tuple[str, str, TensorStorageMetadata]]:
    """The tensors of the LightningModule, each with the prefix of its name."""
    entries = read_metadata(path).state_dict_metadata
    prefix = "state_dict." if any(name.startswith("state_dict.") for name in entries) else "model."  # FSDP2, FSDP1
    for name, entry in entries.items():
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata):
            yield prefix, name, entry


class _MetadataUnpickler(pickle.Unpickler):
    """Loads the classes that metadata is made of, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PATH_CLASSES:
            return PATH_CLASSES[module, name]
        value = super().find_class(module, name) if module in METADATA_MODULES else None
        if isinstance(value, torch.dtype) or value is torch.Size:
            return value
        if isinstance(value, type) and value.__module__ == module and not issubclass(value, io.IOBase):
            return value
        if (module, name) in OTHER_GLOBALS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{METADATA} holds more than data: {module}.{name}; no code was run")
