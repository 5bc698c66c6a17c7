"""Prompts drawn in another process, where Python hashes strings otherwise."""

import importlib
import importlib.util
import inspect
import os
import pickle
import subprocess
import sys

from unirl.prompts.base import Prompts
from unirl.types import Example


def in_another_process(prompts: Prompts, draws: int, count: int) -> tuple[list[Example], list[Example]]:
    """What a source draws with seed 0, and what it holds out, in a new process with another hash seed.

    Args:
        prompts: Can be pickled.
        draws: How many training examples.
        count: How many held-out ones.
    """
    kind = type(prompts)
    path = [*filter(None, sys.path), os.getcwd()]  # pytest names test modules from where it runs
    task = pickle.dumps((kind.__module__, inspect.getfile(kind), path, pickle.dumps(prompts), draws, count))
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, __file__],
        input=task,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": os.pathsep.join(path)},
        check=False,
    )
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    assert not done.returncode, f"{kind.__name__} does not work in another process: {lines[-1]}"
    drawn, held = pickle.loads(done.stdout)
    return drawn, held


def main() -> None:
    """The other process: reads what to do from its input, writes what it drew."""
    module, file, path, source, draws, count = pickle.loads(sys.stdin.buffer.read())
    sys.path[:] = path  # instead of this file's own folder
    _load(module, file)
    prompts: Prompts = pickle.loads(source)
    found = [prompts.sample(0, i) for i in range(draws)], prompts.held_out(count)
    sys.stdout.buffer.write(pickle.dumps(found))


def _load(module: str, file: str) -> None:
    """Import a module by name, or from its file where pytest imported a test module that has no such name."""
    try:
        importlib.import_module(module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)


if __name__ == "__main__":
    main()
