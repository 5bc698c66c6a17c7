"""`--trace-hooks`: prints each hook call with its plugin and result."""

import pytest
import torch

from unirl import hookimpl
from unirl.hooks.host import Host
from unirl.hooks.implementations import implementations, summarize, traced
from unirl.hooks.options import PluginOptions

SOURCE = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("one", "standins:FixedReward")
    register("two", "standins:FixedReward")
"""


class Watcher:
    @hookimpl
    def unirl_validated(self, metrics):
        return len(metrics)

    @hookimpl(wrapper=True)
    def unirl_rollout_scored(self):
        return (yield)


def test_loading_is_printed_to_stderr(install, capsys: pytest.CaptureFixture[str]) -> None:
    install("plug", SOURCE, "1.1")
    Host(PluginOptions(trace=True))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "trace unirl_register_rewards(register)  plug (plug 1.1)  -> registers one, two\n")


def test_a_call_is_printed_with_plugin_and_result(install, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    host.manager.register(traced(implementations(Watcher()), "Watcher"))
    assert host.manager.hook.unirl_validated(metrics={"generation": 0.5}) == [1]
    assert capsys.readouterr().err == "trace unirl_validated(metrics={'generation': 0.5})  Watcher  -> 1\n"


def test_a_wrapper_still_wraps_and_is_printed(install, capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    host.manager.register(traced(implementations(Watcher()), "Watcher"))
    assert host.manager.hook.unirl_rollout_scored(rollout=None) == []
    assert capsys.readouterr().err == "trace unirl_rollout_scored()  Watcher  -> []\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (torch.tensor([0.0, 0.5]), "Tensor (2,), 0 to 0.5"),
        (torch.tensor([True, False]), "Tensor (2,), 0 to 1"),
        (torch.zeros(0), "Tensor (0,)"),
        (PluginOptions(), "PluginOptions"),
    ],
)
def test_values_are_summarized(value: object, text: str) -> None:
    assert summarize(value) == text
    assert len(summarize("long " * 100)) < 80
