"""Calls in new Python processes: with another hash seed, or as the ranks of a process group."""

import importlib
import importlib.util
import inspect
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

Call = Callable[[], Any]
FORKS = sys.platform == "linux"
"""Whether one process imports the modules and forks for each call; forks are not safe on other systems."""


class SubprocessError(Exception):
    """A subprocess failed. The message is the line with its error; `log` is everything that it wrote."""

    def __init__(self, log: str) -> None:
        self.log = log
        lines = log.strip().splitlines() or ["no message"]
        super().__init__(next((line for line in lines[::-1] if "Error" in line), lines[-1]))


def run_in_subprocesses(
    calls: Sequence[Call], imported: type, environment: Mapping[str, str], timeout: float | None = None
) -> list[Any]:
    """Run several calls at the same time, each in a process of its own.

    On Linux a single process imports the modules and forks for each call, because imports take longer than the calls.

    Args:
        calls: Picklable functions without arguments, such as `functools.partial` objects.
        imported: A class whose module is imported before the calls are unpickled. It may be defined in a test module
            that cannot be imported by name.
        environment: Environment variables to set.
        timeout: Seconds until the processes are killed; None waits for them.

    Returns:
        The results, in the order of the calls.

    Raises:
        SubprocessError: a call failed.
        TimeoutError: a call took too long.

    Example:
        >>> import functools, unirl
        >>> run_in_subprocesses([functools.partial(max, 1, 2)], unirl.Example, {})
        [2]
    """
    path = [*filter(None, sys.path), os.getcwd()]  # pytest may name a test module relative to the working directory
    indexed = list(enumerate(calls))
    batches = [indexed] if FORKS else [[item] for item in indexed]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment}
    with tempfile.TemporaryDirectory() as name:
        folder, processes = Path(name), []
        for batch in batches:
            first = batch[0][0]
            task = (path, imported.__module__, inspect.getfile(imported), pickle.dumps(batch))
            (folder / f"task{first}").write_bytes(pickle.dumps(task))
            with (folder / f"log{first}").open("w") as log:
                command = [sys.executable, __file__, name, str(first)]
                processes.append(
                    subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=FORKS)
                )
        try:
            for process in processes:
                process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no result after {timeout} s") from None
        finally:
            for process in processes:
                _kill(process)
        results = [folder / f"result{i}" for i in range(len(calls))]
        for i, result in enumerate(results):
            if not result.exists():
                raise SubprocessError((folder / f"log{i}").read_text(errors="replace"))
        return [pickle.loads(result.read_bytes()) for result in results]


def import_by_name_or_file(module: str, source: str) -> None:
    """Import a module by its name, or from its file where pytest gave it a name that cannot be imported.

    Args:
        module: Name of the module.
        source: Its file.
    """
    try:
        importlib.import_module(module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module, source)
        assert spec is not None
        assert spec.loader is not None
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and, where it forks, its children."""
    if FORKS:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _run_task(folder: Path, first: str) -> None:
    path, module, source, pickled = pickle.loads((folder / f"task{first}").read_bytes())
    sys.path[:] = path  # without the folder of this file
    import_by_name_or_file(module, source)
    (index, call), *others = pickle.loads(pickled)
    children = [_fork(other, folder, i) for i, other in others]
    _write_result(call, folder, index)
    for child in children:
        os.waitpid(child, 0)


def _fork(call: Call, folder: Path, index: int) -> int:
    process = os.fork()
    if not process:
        with (folder / f"log{index}").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _write_result(call, folder, index)
        _exit()
    return process


def _write_result(call: Call, folder: Path, index: int) -> None:
    partial = folder / f"partial{index}"
    partial.write_bytes(pickle.dumps(call()))
    partial.rename(folder / f"result{index}")


def _exit() -> None:
    """End without tearing the interpreter down: a leftover thread of gloo may abort it (pytorch#190489)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    _run_task(Path(sys.argv[1]), sys.argv[2])
    _exit()
