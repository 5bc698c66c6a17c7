"""A checksum of a whole file, at its end: zip archives have none for what says where their parts are."""

import hashlib
import os
from typing import IO, Any

MARK = b"unirl sha256 of all before: "
LENGTH = len(MARK) + hashlib.sha256().digest_size
CHUNK = 1 << 22


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
