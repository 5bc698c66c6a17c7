"""A reward that hangs does not hang the run."""

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from unirl.errors import UserError

GRACE = 30.0
"""Seconds after the limit in which Python code can still be stopped; then the process ends where it is."""


class _Late(BaseException):
    """No Exception: a reward that asks again whatever fails would go on."""


@contextmanager
def time_limit(seconds: float | None, who: str) -> Iterator[None]:
    """Stop what takes longer than it may.

    Python code, sleeping and waiting for an answer are interrupted where they are. What is deep in a library and never
    comes back to Python ends the process after `GRACE` more seconds, with a traceback that says where it hangs.

    Args:
        seconds: How long it may take; None lets it take its time.
        who: It, for the message.

    Raises:
        UserError: it took longer.

    Example:
        >>> with within(5.0, "reward 'words'"):
        ...     pass
    """
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__ or 2)  # a captured one is no file
    stops = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, _late) if stops else None
    try:
        if stops:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except _Late as late:
        where = traceback.extract_tb(late.__traceback__)[-2]  # the last is `_late`
        raise UserError(
            f"{who} took longer than reward_timeout, {seconds:g} s ({where.filename}:{where.lineno}); give it more "
            "time, or mend it. What was saved before is intact, and `--ckpt_path last` goes on from it"
        ) from None
    finally:
        if stops:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _late(number: int, frame: FrameType | None) -> None:
    raise _Late
