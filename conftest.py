"""Of all tests, the plugins' too: GPUs are hidden, since many tests fork, which CUDA forbids once it has started."""

import os

GPU_TESTS = "UNIRL_TEST_GPU"
"""Set it to run what needs a GPU: `UNIRL_TEST_GPU=1 pytest -k gpu`."""

if not os.environ.get(GPU_TESTS):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before CUDA starts; the processes that tests start have it, too
