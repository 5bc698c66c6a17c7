"""Of all tests, the plugins' too: GPUs are hidden, since many tests fork, which CUDA forbids once it has started."""

import gc
import os

GPU_TESTS = "UNIRL_TEST_GPU"
"""Set it to run what needs a GPU: `UNIRL_TEST_GPU=1 pytest -k gpu`."""

if not os.environ.get(GPU_TESTS):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA starts; the processes that tests start have it, too


def pytest_collection_finish() -> None:
    """What the imports of all tests made lives to the end: a collection of garbage need not look at it each time."""
    gc.collect()
    gc.freeze()
