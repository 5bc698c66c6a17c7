"""Runs functions in forked processes, so that no case pays for the memory of another one."""

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


def run_forked(function: Callable[..., Any], *args: Any, processes: int = 1) -> list[Any]:
    """What a function returned in each process. Several processes get the environment variables of torchrun.

    Raises:
        RuntimeError: a process failed; with all exit codes (negative for a signal) and outputs.
    """
    with TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        fork = multiprocessing.get_context("fork")
        path = Path(folder)
        workers = [
            fork.Process(target=_run_rank, args=(function, path, rank, processes, port, args))
            for rank in range(processes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            codes = [f"process {rank} ended with {worker.exitcode}" for rank, worker in enumerate(workers)]
            logs = [(path / f"log{rank}").read_text(encoding="utf-8") for rank in range(processes)]
            raise RuntimeError("\n".join([*codes, *logs]))
        return [torch.load(path / f"result{rank}", weights_only=False) for rank in range(processes)]


def _run_rank(
    function: Callable[..., Any], folder: Path, rank: int, processes: int, port: int, args: tuple[Any, ...]
) -> None:
    log = os.open(folder / f"log{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)  # the parent may have replaced them, as pytest does
    if processes > 1:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        variables |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables |= {"TORCHELASTIC_RUN_ID": "benchmark"}
        os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    torch.save(function(*args), folder / f"result{rank}")


def peak_resident_memory() -> float:
    """Largest resident memory of this process since it was forked, in bytes."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match is not None
    return 1024.0 * int(match[1])
