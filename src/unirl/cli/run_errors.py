"""Errors of a run that are not bugs: each becomes one line for the user."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from unirl.callbacks.preemption import Preempted
from unirl.checkpoint.resume import is_disk_error
from unirl.distributed.collectives import is_peer_failure
from unirl.errors import UserError

_RESUME = "the run stops; earlier checkpoints are intact, and `--ckpt_path last` resumes from the latest"


@contextmanager
def translate(advice: str = _RESUME) -> Iterator[None]:
    """Translate errors of Lightning, the disk or another process into user errors.

    Args:
        advice: What the user can do after an error of the disk or another process.

    Raises:
        UserError: in place of such an error.
        SystemExit: code 0 in place of `SIGTERMException`, whose exit code depends on the version of Lightning: a run
            that SIGTERM stops has saved a checkpoint and ends as requested. 130 after Ctrl-C.
    """
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(error.code if isinstance(error, Preempted) else 0) from None
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except RuntimeError as error:
        if not is_peer_failure(error):
            raise
        reason = str(error).rpartition("] ")[2].partition(". ")[0]
        raise UserError(
            f"another process of this run has ended ({reason}); its log says whether it was killed, ran out of "
            f"memory, or failed; {advice}"
        ) from error
    except OSError as error:
        if not is_disk_error(error):
            raise
        file = f" ({error.filename})" if error.filename else ""
        raise UserError(f"{error.strerror}{file}: {advice}") from error
