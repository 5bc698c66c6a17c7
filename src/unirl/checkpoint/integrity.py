"""Checksums: of a whole file at its end, for zip archives have none for what says where their parts are; of a folder's
files in one of their own, for others write those.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

import unirl.types  # noqa: F401 - says which of our classes a checkpoint may hold
from unirl.checkpoint.sharded import META, is_sharded, items

MARK = b"unirl sha256 of all before: "
LENGTH = len(MARK) + hashlib.sha256().digest_size
CHUNK = 1 << 22
PART = ".part"
"""Ends the name of what is being written."""
SUMS = "SHA256SUMS"
"""A folder's checksums, as the command `sha256sum` writes and checks them."""


class Seal:
    """Takes in what is written, and gives what shall end the file. Readers of zip archives pass over it."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def update(self, data: Any) -> None:
        self._sum.update(data)

    def close(self) -> bytes:
        return MARK + self._sum.digest()


def broken_seal(file: IO[bytes]) -> str | None:
    """What the seal of a file says against it; empty where the seal is whole, None where there is none.

    Args:
        file: Open for reading; of another writer it has no seal.
    """
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - LENGTH))
    end = file.read()
    if MARK not in end:
        return None
    if not end.startswith(MARK):
        return "truncated"
    seal = Seal()
    file.seek(0)
    while start > 0 and (data := file.read(min(CHUNK, start))):
        seal.update(data)
        start -= len(data)
    return "" if seal.close() == end else "damaged: the checksum of the whole file does not fit"


def sum_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            found.update(data)
    return found.hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Say what the files of a folder hold; `sums` has the checksum of each by its name."""
    lines = [f"{value}  {name}\n" for name, value in sorted(sums.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def broken_sum(folder: Path) -> str | None:
    """What the checksums of a folder say against it; None where nothing, or where there are none.

    Raises:
        FileNotFoundError: a file that they name is missing.
    """
    if not (folder / SUMS).is_file():
        return None
    for line in (folder / SUMS).read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        value, _, name = line.partition("  ")
        if sum_of(folder / Path(name).name) != value:
            return f"damaged: the checksum of {name} does not fit"
    return None


def find_corruption(path: Path) -> str | None:
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
