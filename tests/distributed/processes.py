"""Runs functions in several processes on the CPU, forked from this one, which has imported everything."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TIMEOUT = 600.0


def run_processes(function: Callable[..., Any], folder: Path, *args: Any, processes: int = 2) -> list[Any]:
    """What `function(folder, *args)` returned on each rank. The environment variables are those of torchrun."""
    codes, logs = exit_codes(function, folder, *args, processes=processes)
    assert codes == [0] * processes, f"exit codes {codes} (None: timeout)\n" + "\n".join(logs)
    return [torch.load(folder / f"result{rank}.pt", weights_only=False) for rank in range(processes)]


def exit_codes(
    function: Callable[..., Any], folder: Path, *args: Any, processes: int = 2, timeout: float = TIMEOUT
) -> tuple[list[int | None], list[str]]:
    """The exit code of each rank, None after a timeout, and its output."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=_run_rank, args=(function, folder, rank, processes, port, args))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(timeout)
        codes = [worker.exitcode for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return codes, [(folder / f"log{rank}.txt").read_text() for rank in range(processes)]


def _run_rank(
    function: Callable[..., Any], folder: Path, rank: int, processes: int, port: int, args: tuple[Any, ...]
) -> None:
    log = os.open(folder / f"log{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
    if processes > 1:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        variables |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    torch.save(function(folder, *args), folder / f"result{rank}.pt")
