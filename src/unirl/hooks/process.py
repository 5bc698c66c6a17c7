"""Switches for the length of one command, in this process and in those it starts."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unirl.hooks.host import host
from unirl.hooks.switches import VARIABLE, from_environment, parse


@contextmanager
def with_switches(argv: Sequence[str]) -> Iterator[list[str]]:
    """Take the switches out of a command line and let everything that loads plugins see them.

    They go through the environment, which launched and spawned processes inherit.

    Args:
        argv: A command line; what is left of it is yielded.

    Raises:
        UserError: a switch lacks its value, or the environment holds no switches.
    """
    switches, rest = parse(argv, from_environment())
    before = os.environ.get(VARIABLE, "")
    _set(switches.text())
    try:
        yield rest
    finally:
        _set(before)


def _set(text: str) -> None:
    if text == os.environ.get(VARIABLE, ""):
        return
    os.environ.pop(VARIABLE, None)
    if text:
        os.environ[VARIABLE] = text
    host.cache_clear()
