"""Output to a terminal, file or pipe of any encoding, and files that are whole or not there."""

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
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


def drop_after_closed_pipe(*streams: Any) -> None:
    """Let what is printed to a pipe whose reader has ended, such as `head`, be dropped, instead of raising an error.

    What is only printed must not end a run.

    Args:
        streams: By default standard output and standard error.
    """
    for stream in streams or (sys.stdout, sys.stderr):
        if stream is None or getattr(stream, "drops_after_closed_pipe", False):
            continue
        stream.drops_after_closed_pipe = True
        for name in ("write", "flush"):
            setattr(stream, name, partial(_call, stream, getattr(stream, name)))


def _call(stream: Any, method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # also for what is flushed at exit
        return len(arguments[0]) if arguments else None


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
