"""The lifecycle hooks of a run: plugins and callbacks, pickling, sample weights, every way to mark a function."""

import pickle
from types import SimpleNamespace

import pytest
import torch

from unirl import hookimpl
from unirl.errors import UserError
from unirl.hooks.host import plugin_options
from unirl.hooks.lifecycle import Lifecycle

PLUGIN = """
from unirl import hookimpl

seen = []

@hookimpl
def unirl_validated(metrics):
    seen.append(metrics)
"""


class Watcher:
    seen: list[object] = []  # noqa: RUF012 - shared with unpickled copies

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
    copy.validated({"generation": 1.0})
    import plug  # noqa: PLC0415 - installed by this test

    assert plug.seen == [{"generation": 1.0}]
    assert Watcher.seen == [{"generation": 1.0}] * len(callbacks)


class FixedWeights:
    def __init__(self, weights: object) -> None:
        self.weights = weights

    @hookimpl
    def unirl_rollout_scored(self, rollout) -> object:
        return self.weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(3), r"returned shape \(3,\), expected \(2,\)"),
        (torch.tensor([1.0, -1.0]), "returned a weight of -1.0; weights must be finite"),
        (torch.ones(2, device="meta"), "returned a tensor on meta, expected cpu"),
    ],
)
def test_invalid_weights_are_an_error_that_names_the_plugins(weights: object, message: str) -> None:
    rollout = SimpleNamespace(scores=torch.zeros(2))
    good = Lifecycle([FixedWeights(torch.tensor([1.0, 0.5])), FixedWeights(torch.tensor([0.5, 0.5]))])  # two of a kind
    assert good.weights(rollout).tolist() == [0.5, 0.25]
    with pytest.raises(UserError, match=rf"unirl_rollout_scored \(one of: .*FixedWeights\) {message}"):
        Lifecycle([FixedWeights(weights)]).weights(rollout)


def test_a_misspelt_hook_of_a_callback_is_an_error(install) -> None:
    with pytest.raises(UserError, match=r"Misspelt: unirl .* has no hook 'unirl_validatd'; nearest: unirl_validated"):
        Lifecycle([Misspelt()])


class AllMarks:
    """Hook implementations marked in every way that pluggy accepts, and a property that must not be run."""

    @property
    def mode(self) -> str:
        raise AssertionError("the property was run")

    @hookimpl
    @staticmethod
    def unirl_validated(metrics) -> str:
        return "static"

    @hookimpl(specname="unirl_rollout_scored")
    def weigh(self, rollout) -> None: ...

    @hookimpl(optionalhook=True)
    def unirl_of_a_later_version(self, anything) -> None: ...


@pytest.mark.parametrize("trace", [False, True])
def test_all_ways_to_mark_an_implementation(install, capsys: pytest.CaptureFixture[str], trace: bool) -> None:
    with plugin_options(["--trace-hooks"] if trace else []):
        lifecycle = Lifecycle([AllMarks(), AllMarks()])
        lifecycle.validated({})
        assert lifecycle.weights(SimpleNamespace(scores=torch.zeros(1))) is None
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["trace unirl_validated(metrics={})  AllMarks  -> 'static'"] * (2 * trace)
    assert len(lines) == 4 * trace
