"""Lines of JSON that several processes append, and that a killed process may leave cut off."""

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
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._known is not None:
            self._known[key] = value
        line = json.dumps([key, value]) + "\n"
        if not self._has_begun:  # on a line of its own, after what a killed process left
            self._has_begun = True
            line = "\n" + line
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def refresh(self) -> None:
        """Forget what was read, so that the records of other processes are read, too."""
        self._known = None

    def _lines(self) -> Iterator[tuple[str, Any]]:
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    key, value = json.loads(line)
                except ValueError:
                    continue
                yield key, value
