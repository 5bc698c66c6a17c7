"""How a run can end that is nobody's programming error, in a sentence each."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from unirl.checkpoint.resume import is_disk_error
from unirl.distributed.collectives import is_peer_failure
from unirl.errors import UserError

GO_ON = "the run stops; what was saved before is intact, and `--ckpt_path last` goes on from it"


@contextmanager
def translate() -> Iterator[None]:
    """Turn what Lightning, the disk or another process did into an error that a user can read.

    Raises:
        UserError: in place of one of those.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if not is_peer_failure(error):
            raise
        said = str(error).rpartition("] ")[2].partition(". ")[0]
        raise UserError(
            f"another process of this run is gone ({said}); its own log says why: killed, out of memory, or failed; "
            f"{GO_ON}"
        ) from error
    except OSError as error:
        if not is_disk_error(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(f"{error.strerror}{where}: {GO_ON}") from error
