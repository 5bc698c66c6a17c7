"""Checksums: of a whole file at its end, for zip archives have none for what says where their parts are; of a folder's
files in one of their own, for others write those.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

MARK = b"unirl sha256 of all before: "
LENGTH = len(MARK) + hashlib.sha256().digest_size
CHUNK = 1 << 22
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
