"""Of all tests, the plugins' too: no GPUs, tests that fork come first, and what is imported is no garbage."""

import gc
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

GPU_TESTS = "UNIRL_TEST_GPU"
"""Set it to run what needs a GPU: `UNIRL_TEST_GPU=1 pytest -k gpu`."""
SHARDED = "test_sharded_model_matches_unsharded"
"""The check of a backbone whose ranks are forked; in tests/testing they are new processes, as plugins have them."""
FORKING = (
    "tests/distributed/",
    "tests/checkpoint/",
    "tests/test_benchmarks.py",
    "tests/training/test_loss_batch_size.py",
)
"""Tests that fork this process."""

if not os.environ.get(GPU_TESTS):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA starts, which forbids forks; in the processes of tests, too
gc.disable()  # until all tests are collected: what is imported stays


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork come first: PyTorch cannot fork after a backward pass on the pretend accelerator."""
    items.sort(key=lambda item: not (item.nodeid.startswith(FORKING) or item.name == SHARDED))  # workers keep the order


def pytest_collection_finish() -> None:
    """What the imports made lives to the end, so no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _forked_ranks(request: pytest.FixtureRequest) -> Iterator[None]:
    """The ranks of a sharded model are forked from this process, which has imported torch."""
    forks = request.node.name == SHARDED and sys.platform == "linux" and not os.environ.get(GPU_TESTS)
    with pytest.MonkeyPatch.context() as patch:
        if forks:
            patch.setattr("unirl.testing.backbone_weights.run_in_subprocesses", run_forked)
        yield


def run_forked(
    calls: Sequence[Callable[[], Any]], imported: type, environment: Mapping[str, str], timeout: float | None = None
) -> list[Any]:
    """In place of `unirl.testing.subprocesses.run_in_subprocesses`: with what this process has imported."""
    fork = multiprocessing.get_context("fork")
    with TemporaryDirectory() as folder:
        results = [Path(folder) / str(rank) for rank in range(len(calls))]
        workers = [fork.Process(target=_call, args=(*one, environment)) for one in zip(calls, results, strict=True)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout)
            worker.kill()
        assert all(result.exists() for result in results), f"a rank did not finish within {timeout} s"
        found = [pickle.loads(result.read_bytes()) for result in results]
    errors = "\n".join(error for _, error in found if error)
    assert not errors, errors
    return [value for value, _ in found]


def _call(function: Callable[[], Any], result: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        result.write_bytes(pickle.dumps((function(), "")))
    except BaseException:
        result.write_bytes(pickle.dumps((None, traceback.format_exc())))
    os._exit(0)  # a leftover thread of gloo may abort the process
