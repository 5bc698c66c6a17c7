import os
import time
from functools import partial

import pytest

from unirl.testing.subprocesses import SubprocessError, run_in_subprocesses
from unirl.types import Example


def test_results_have_the_order_of_the_calls() -> None:
    calls = [partial(max, i, 2) for i in (1, 3)] + [partial(os.getenv, "UNIRL_TEST")]
    assert run_in_subprocesses(calls, Example, {"UNIRL_TEST": "set"}) == [2, 3, "set"]


def test_the_error_of_a_call_is_reported() -> None:
    with pytest.raises(SubprocessError, match=r"^ValueError: .*'two'"):
        run_in_subprocesses([partial(int, "1"), partial(int, "two")], Example, {})


def test_calls_that_take_too_long_are_stopped() -> None:
    with pytest.raises(TimeoutError, match="no result after"):
        run_in_subprocesses([partial(time.sleep, 60), partial(time.sleep, 60)], Example, {}, timeout=0.1)
