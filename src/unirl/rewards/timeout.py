"""A time limit for rewards."""

import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from unirl.errors import UserError

GRACE_PERIOD = 30.0
"""Seconds after the limit until the process is ended, where Python code cannot be interrupted."""


class _TimeLimitExceeded(BaseException):
    """Not an `Exception`, which a reward that retries would catch."""


@contextmanager
def time_limit(seconds: float | None, name: str) -> Iterator[None]:
    """Limit the time of a block.

    Python code, `sleep` and waiting for a network are interrupted by a signal. Code of a library that does not return
    to Python is not: then the process ends after `GRACE_PERIOD` more seconds, with a traceback.

    Args:
        seconds: The limit. None sets no limit.
        name: What is limited, for the message.

    Raises:
        UserError: the block took longer.

    Example:
        >>> with time_limit(5.0, "reward 'words'"):
        ...     pass
    """
    if seconds is None:
        yield
        return
    stderr = sys.__stderr__ or 2  # a captured stderr has no file descriptor
    faulthandler.dump_traceback_later(seconds + GRACE_PERIOD, exit=True, file=stderr)
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    previous_handler = signal.signal(signal.SIGALRM, _raise) if can_interrupt else None
    try:
        if can_interrupt:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except _TimeLimitExceeded as error:
        frame = traceback.extract_tb(error.__traceback__)[-2]  # the last one is `_raise`
        raise UserError(
            f"{name} took longer than model.rollout.reward_timeout, {seconds:g} s ({frame.filename}:{frame.lineno}); "
            "set a longer timeout, or fix the reward. Earlier checkpoints are intact; `--ckpt_path last` resumes from "
            "the last one"
        ) from None
    finally:
        if can_interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous_handler)
        faulthandler.cancel_dump_traceback_later()


def _raise(number: int, frame: FrameType | None) -> None:
    raise _TimeLimitExceeded
