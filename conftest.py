"""Of all tests, the plugins' too: GPUs are hidden, since many tests fork, which CUDA forbids once it has started."""

import gc
import os

GPU_TESTS = "UNIRL_TEST_GPU"
"""Set it to run what needs a GPU: `UNIRL_TEST_GPU=1 pytest -k gpu`."""

if not os.environ.get(GPU_TESTS):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA starts; the processes that tests start have it, too

gc.disable()  # until all tests are collected: what is imported stays


def pytest_collection_finish() -> None:
    """What the imports made lives to the end, so no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()
