"""The hooks of a run, in a process that got them pickled."""

import pickle

import pytest

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


def test_a_callbacks_misspelt_hook_names_the_callback(install) -> None:
    with pytest.raises(UserError, match=r"Misspelt: unirl .* has no hook 'unirl_validatd'; nearest: unirl_validated"):
        Lifecycle([Misspelt()])
