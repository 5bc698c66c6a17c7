"""The hooks of a run, in a process that got them pickled."""

import pickle
from types import SimpleNamespace

import pytest
import torch

from unirl import hookimpl
from unirl.errors import UserError
from unirl.hooks.lifecycle import Lifecycle

PLUGIN = """
from unirl import hookimpl

seen = []

@hookimpl
def unirl_validated(metrics):
    seen.append(metrics)
"""


class Watcher:
    seen: list[object] = []  # noqa: RUF012 - what a copy saw, too

    @hookimpl
    def unirl_validated(self, metrics) -> None:
        Watcher.seen.append(metrics)


class Misspelt:
    @hookimpl
    def unirl_validatd(self, metrics) -> None: ...


@pytest.mark.parametrize("callbacks", [[], [Watcher()]], ids=["plugins", "plugins-and-callbacks"])
def test_a_pickled_lifecycle_calls_plugins_and_callbacks_alike(install, callbacks: list[object]) -> None:
    install("plug", PLUGIN)
    copy = pickle.loads(pickle.dumps(Lifecycle(callbacks)))
    Watcher.seen.clear()
    copy.validated({"drawing": 1.0})
    import plug  # noqa: PLC0415 - installed by this test

    assert plug.seen == [{"drawing": 1.0}]
    assert Watcher.seen == [{"drawing": 1.0}] * len(callbacks)


class Weighing:
    def __init__(self, weights: object) -> None:
        self.weights = weights

    @hookimpl
    def unirl_rollout_scored(self, rollout) -> object:
        return self.weights


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (torch.ones(3), r"gave \(3,\), expected weights \(2,\)"),
        (torch.tensor([1.0, -1.0]), "gave weights from -1.0 on"),
        (torch.ones(2, device="meta"), "gave weights on meta, expected cpu"),
    ],
)
def test_weights_that_cannot_be_are_refused_with_those_who_may_have_given_them(weights: object, says: str) -> None:
    rollout = SimpleNamespace(scores=torch.zeros(2))
    good = Lifecycle([Weighing(torch.tensor([1.0, 0.5])), Weighing(torch.tensor([0.5, 0.5]))])  # two of a kind
    assert good.weights(rollout).tolist() == [0.5, 0.25]
    with pytest.raises(UserError, match=rf"unirl_rollout_scored \(one of: .*Weighing\) {says}"):
        Lifecycle([Weighing(weights)]).weights(rollout)


def test_a_callbacks_misspelt_hook_names_the_callback(install) -> None:
    with pytest.raises(UserError, match=r"Misspelt: unirl .* has no hook 'unirl_validatd'; nearest: unirl_validated"):
        Lifecycle([Misspelt()])
