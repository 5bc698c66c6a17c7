"""Output to a terminal, file or pipe of any encoding, and files that are whole or not there."""

import os
import sys
import warnings
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


def plain_warnings() -> None:
    """Let warnings be one line `warning: MESSAGE` on stderr, without the code that gave it.

    Those of other packages are followed by their place. Lightning sets the form of warnings when it is imported, so
    call this afterwards.
    """
    warnings.formatwarning = _format_warning


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    place = "" if Path(filename).is_relative_to(Path(__file__).parent) else f" ({filename}:{lineno})"
    return f"warning: {' '.join(str(message).split())}{place}\n"


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
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:  # a full disk, or an interrupt
        partial.unlink(missing_ok=True)
        raise
