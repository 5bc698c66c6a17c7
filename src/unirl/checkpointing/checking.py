"""Is a checkpoint whole, and is it nothing but data? Found out without running anything that it holds."""

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

import torch

import unirl.types  # noqa: F401 - says which of our classes a checkpoint may hold
from unirl.checkpointing.sealing import broken_seal, broken_sum
from unirl.checkpointing.sharded import META, is_sharded, items


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None where nothing is.

    Ours end with a checksum of the whole file, or have those of all files beside them. Any other that `torch.save`
    writes is a zip archive with a checksum for each tensor; PyTorch does not look at them when it loads, this does.

    Args:
        path: A `.ckpt` file, or the folder of a sharded checkpoint.
    """
    try:
        if path.is_dir() and (bad := broken_sum(path)) is not None:
            return bad
        for name, file in _archives(path):
            if (found := _archive_fault(file)) is not None:
                return f"{found} ({name})" if path.is_dir() else found
    except FileNotFoundError as error:
        return f"{Path(error.filename or path).name} is missing"
    except Exception as error:  # a flipped bit makes archives fail in any way
        return f"broken: {' '.join(str(error).split())[:120] or type(error).__name__}"
    return None


def _archives(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if not path.is_dir():
        with path.open("rb") as file:
            yield path.name, file
        return
    if not is_sharded(path):
        raise ValueError(f"the folder holds no {META}, so it is no sharded checkpoint, or half of one")
    with (path / META).open("rb") as file:
        yield META, file
    for name, data in items(path):
        yield name, BytesIO(data)


def _archive_fault(file: IO[bytes]) -> str | None:
    seal = broken_seal(file)
    if bad := _zip_fault(file) if seal is None else seal:
        return bad
    file.seek(0)
    unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    return f"it holds more than data: {', '.join(unsafe[:3])}; nothing of it was run" if unsafe else None


def _zip_fault(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except zipfile.BadZipFile:
        return "truncated, or no checkpoint"
    return f"damaged: the checksum of {bad} does not fit" if bad is not None else None
