"""Several processes that train together on the CPU, forked from one that has imported everything."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PATIENCE = 600


def together(work: Callable[..., Any], folder: Path, *args: Any, processes: int = 2) -> list[Any]:
    """What each of them returned; the work is told of them by torchrun's own variables."""
    codes, logs = ended(work, folder, *args, processes=processes)
    assert codes == [0] * processes, f"exit codes {codes} (None: still waiting)\n" + "\n".join(logs)
    return [torch.load(folder / f"found{rank}.pt", weights_only=False) for rank in range(processes)]


def ended(
    work: Callable[..., Any], folder: Path, *args: Any, processes: int = 2, patience: float = PATIENCE
) -> tuple[list[int | None], list[str]]:
    """How each of them ended, None for one that had to be stopped, and what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_work, args=(work, folder, i, processes, port, args)) for i in range(processes)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join(patience)
        codes = [worker.exitcode for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return codes, [(folder / f"log{rank}.txt").read_text() for rank in range(processes)]


def _work(work: Callable[..., Any], folder: Path, rank: int, processes: int, port: int, args: tuple[Any, ...]) -> None:
    log = os.open(folder / f"log{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1)
    if processes > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        own |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in own.items()})
    torch.set_num_threads(1)
    torch.save(work(folder, *args), folder / f"found{rank}.pt")
