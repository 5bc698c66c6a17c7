"""Lines of JSON that several processes append, and that a killed process may leave cut off."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Records:
    """Records by key, in a folder with a file for each process.

    Every record is one line, written at once. What a killed process left incomplete is ignored.

    Args:
        folder: Where the files are.
        rank: Of this process, in the name of its file.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.path = folder, folder / f"{rank:04d}.jsonl"
        self._known: dict[str, Any] | None = None
        self._has_begun = False

    def __contains__(self, key: str) -> bool:
        return key in self.read()

    def read(self) -> dict[str, Any]:
        """All records of all processes, by key; those of this process are current."""
        if self._known is None:
            self._known = dict(self._lines())
        return self._known

    def append(self, key: str, value: Any) -> None:
        """Add a record.

        Args:
            key: Of the record.
            value: What JSON can hold.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        line = (json.dumps([key, value]) + "\n").encode()
        if not self._has_begun:  # on a line of its own, after what a killed process left
            self._has_begun = True
            line = b"\n" + line
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(descriptor)
        if self._known is not None:
            self._known[key] = value

    def refresh(self) -> None:
        """Forget what was read, so that the records of other processes are read, too."""
        self._known = None

    def _lines(self) -> Iterator[tuple[str, Any]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    key, value = json.loads(line)
                except (ValueError, TypeError):  # cut off, or what a lost block of the disk left
                    continue
                yield key, value
