"""How a command shows warnings, and what it prints to nobody."""

import os
import subprocess
import sys

from unirl.output import drop_after_closed_pipe

SCRIPT = """
import warnings
from unirl.cli.main import _function
_function("fit")
from unirl.training import lengths
exec(compile("from warnings import warn\\nwarn('ours, in\\\\ntwo lines')", lengths.__file__, "exec"))
warnings.warn("another's")
"""


def test_a_warning_is_one_line_without_code() -> None:
    """Also after the import of Lightning, which sets a form of its own."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    ours, other = [line for line in done.stderr.splitlines() if line]
    assert ours == "warning: ours, in two lines"
    assert other.startswith("warning: another's (<string>:")


def test_what_is_printed_to_a_closed_pipe_is_dropped() -> None:
    """As by `unirl sample ... | head -1`, whose images are wanted all the same; buffered or not, and at exit."""
    for buffering in (1, -1):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", buffering=buffering) as stream:
            drop_after_closed_pipe(stream)
            drop_after_closed_pipe(stream)
            for _ in range(3):
                print("an answer", file=stream)
            stream.flush()
            print("another", file=stream)
