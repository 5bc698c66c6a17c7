"""`--trace-hooks`: what is called, whose it is, what it returned."""

import pytest
import torch

from unirl import hookimpl
from unirl.hooks.host import Host
from unirl.hooks.implementations import describe, implementations
from unirl.hooks.options import Switches

SOURCE = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("one", "standins:Words")
    register("two", "standins:Words")
"""


class Watcher:
    @hookimpl
    def unirl_validated(self, metrics):
        return len(metrics)

    @hookimpl(wrapper=True)
    def unirl_rollout_scored(self):
        return (yield)


def test_loading_is_traced_on_stderr(install, capsys: pytest.CaptureFixture[str]) -> None:
    install("plug", SOURCE, "1.1")
    Host(Switches(trace=True))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "trace unirl_register_rewards(register)  plug (plug 1.1)  -> registers one, two\n")


def test_calls_name_their_plugin_and_result(install, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    host.manager.register(implementations(Watcher(), "Watcher", trace=True))
    assert host.manager.hook.unirl_validated(metrics={"drawing": 0.5}) == [1]
    assert capsys.readouterr().err == "trace unirl_validated(metrics={'drawing': 0.5})  Watcher  -> 1\n"


def test_a_wrapper_still_wraps_and_is_traced(install, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    host.manager.register(implementations(Watcher(), "Watcher", trace=True))
    assert host.manager.hook.unirl_rollout_scored(rollout=None) == []
    assert capsys.readouterr().err == "trace unirl_rollout_scored()  Watcher  -> []\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (torch.tensor([0.0, 0.5]), "Tensor (2,), 0 to 0.5"),
        (torch.tensor([True, False]), "Tensor (2,), 0 to 1"),
        (torch.zeros(0), "Tensor (0,)"),
        (Switches(), "Switches"),
    ],
)
def test_a_value_is_told_in_a_few_words(value: object, text: str) -> None:
    assert describe(value) == text
    assert len(describe("long " * 100)) < 80
