"""Finding corrupt checkpoints by their checksums.

A file that we write ends with a trailer: the SHA-256 of everything before it. A zip archive, as `torch.save` writes it,
has checksums of its members but none of its directory. A sharded checkpoint is a folder of files that PyTorch writes;
their checksums are in a file `SHA256SUMS`.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch

import unirl.types  # noqa: F401 - registers the classes that a checkpoint may hold
from unirl.checkpoint.sharded import META, is_sharded_checkpoint, iter_shards

TRAILER_MARK = b"unirl sha256 of all before: "
TRAILER_LENGTH = len(TRAILER_MARK) + hashlib.sha256().digest_size
CHECKSUMS = "SHA256SUMS"
"""The checksums of a folder's files, in the format of the command `sha256sum`."""
CHUNK = 1 << 22
"""Bytes that are read at once."""


def find_corruption(path: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None if it is intact.

    Checkpoints that we wrote are verified by their trailer or by `SHA256SUMS`. Others are verified by the checksums of
    the zip archive, which PyTorch does not check when it loads one.

    Args:
        path: A `.ckpt` file, or the folder of a sharded checkpoint.
    """
    try:
        if path.is_dir() and (mismatch := _verify_checksums(path)) is not None:
            return mismatch
        for name, file in _archives(path):
            if (problem := _verify_archive(file)) is not None:
                return f"{problem} ({name})" if path.is_dir() else problem
    except FileNotFoundError as error:
        return f"{Path(error.filename or path).name} is missing"
    except Exception as error:  # a flipped bit can make reading an archive fail in any way
        return f"broken: {' '.join(str(error).split())[:120] or type(error).__name__}"
    return None


class TrailerChecksum:
    """Computes the trailer of a file while it is written. Readers of zip archives skip trailing bytes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, data: Any) -> None:
        """Add bytes that are written."""
        self._sha256.update(data)

    def trailer(self) -> bytes:
        """The trailer, to be written last."""
        return TRAILER_MARK + self._sha256.digest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def write_checksums(folder: Path, checksums: Mapping[str, str]) -> None:
    """Write `SHA256SUMS`.

    Args:
        folder: Where.
        checksums: The SHA-256 of each file of the folder, by name.
    """
    lines = [f"{value}  {name}\n" for name, value in sorted(checksums.items())]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _verify_checksums(folder: Path) -> str | None:
    """A mismatch with `SHA256SUMS`; None if there is none, or no such file. A missing file is a FileNotFoundError."""
    if not (folder / CHECKSUMS).is_file():
        return None
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        value, _, name = line.partition("  ")
        if sha256_of(folder / Path(name).name) != value:
            return f"damaged: the checksum of {name} does not match"
    return None


def _archives(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Each zip archive in a checkpoint, with a name for messages."""
    if not path.is_dir():
        with path.open("rb") as file:
            yield path.name, file
        return
    if not is_sharded_checkpoint(path):
        raise ValueError(f"the folder has no {META}, so it is not a sharded checkpoint, or an incomplete one")
    with (path / META).open("rb") as file:
        yield META, file
    for name, data in iter_shards(path):
        yield name, BytesIO(data)


def _verify_archive(file: IO[bytes]) -> str | None:
    problem = _verify_trailer(file)
    if problem is None:
        problem = _verify_zip(file)
    if problem:
        return problem
    file.seek(0)
    unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    return f"it holds more than data: {', '.join(unsafe[:3])}; no code was run" if unsafe else None


def _verify_trailer(file: IO[bytes]) -> str | None:
    """The problem that the trailer shows; empty if the file is intact, None if it has no trailer."""
    size = file.seek(0, os.SEEK_END)
    remaining = file.seek(max(0, size - TRAILER_LENGTH))
    trailer = file.read()
    if TRAILER_MARK not in trailer:
        return None
    if not trailer.startswith(TRAILER_MARK):
        return "truncated"
    checksum = TrailerChecksum()
    file.seek(0)
    while remaining > 0 and (data := file.read(min(CHUNK, remaining))):
        checksum.update(data)
        remaining -= len(data)
    return "" if checksum.trailer() == trailer else "damaged: the checksum of the file does not match"


def _verify_zip(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.testzip()
    except zipfile.BadZipFile:
        return "truncated, or not a checkpoint"
    return f"damaged: the checksum of {member} does not match" if member is not None else None
