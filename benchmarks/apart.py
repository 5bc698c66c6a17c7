"""Work in processes of its own, forked from one that has imported everything: no case pays for another one's memory."""

import multiprocessing
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

Work = Callable[..., Any]


def apart(work: Work, *args: Any, processes: int = 1) -> list[Any]:
    """What the work returned in each of some processes, which torchrun's own variables tell of each other.

    Raises:
        RuntimeError: one of them failed: how each of them ended (minus a signal's number), and what it printed.
    """
    with TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        place = Path(folder)
        children = [fork.Process(target=_run, args=(work, place, i, processes, port, args)) for i in range(processes)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        if any(child.exitcode for child in children):
            ended = [f"process {i} ended with {child.exitcode}" for i, child in enumerate(children)]
            printed = [(place / f"log{rank}").read_text(encoding="utf-8") for rank in range(processes)]
            raise RuntimeError("\n".join([*ended, *printed]))
        return [torch.load(place / f"found{rank}", weights_only=False) for rank in range(processes)]


def _run(work: Work, folder: Path, rank: int, processes: int, port: int, args: tuple[Any, ...]) -> None:
    log = os.open(folder / f"log{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)  # whoever forked it may have put something else there
    if processes > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        own |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "benchmark"}
        os.environ.update({name: str(value) for name, value in own.items()})
    torch.set_num_threads(1)
    torch.save(work(*args), folder / f"found{rank}")


def resident() -> float:
    """Bytes of memory that this process has now."""
    return _status("VmRSS")


def most_resident() -> float:
    """The most that it has had since it was forked."""
    return _status("VmHWM")


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return 1024.0 * int(found[1])
