"""How a command shows warnings."""

import subprocess
import sys

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
