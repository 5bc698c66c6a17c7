"""Output to a terminal, file or pipe of any encoding, and files that are whole or not there."""

import os
import sys
from pathlib import Path
from typing import Any


def escape_unknown_characters(*streams: Any) -> None:
    r"""Let streams escape what their encoding does not have, such as an arrow in ASCII, instead of raising an error.

    What is only printed must not end a run. A stream whose way of handling errors was chosen keeps it.

    Args:
        streams: By default standard output and standard error.

    Example:
        >>> import io
        >>> stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
        >>> escape_unknown_characters(stream)
        >>> _ = stream.write("50 → 60")
        >>> stream.buffer.getvalue()
        b'50 \\u2192 60'
    """
    for stream in streams or (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file; its folder exists.
        data: Its contents.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", b"a")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(data)
    partial.replace(path)
