"""Old names of hooks and arguments: they work for two minor versions, then they are refused."""

from types import ModuleType

import pytest

import unirl
from unirl.errors import UserError
from unirl.hooks import hookimpl, renamed
from unirl.hooks.host import Host
from unirl.hooks.implementations import implementations
from unirl.hooks.renamed import Renamed, current

OLD_HOOK = """
from unirl import hookimpl

@hookimpl
def unirl_rewards(register):
    register("old", "standins:Words")
"""
OLD_ARGUMENT = (
    OLD_HOOK.replace("unirl_rewards", "unirl_register_rewards")
    .replace("register)", "add)")
    .replace('    register("old"', '    add("old"')
)


@pytest.fixture(autouse=True)
def changes(monkeypatch: pytest.MonkeyPatch):
    """A hook and an argument that 0.4 renamed."""
    monkeypatch.setattr(renamed, "HOOKS", (Renamed("unirl_rewards", "unirl_register_rewards", "0.4"),))
    changed = {"unirl_register_rewards": (Renamed("add", "register", "0.4"),)}
    monkeypatch.setattr(renamed, "ARGUMENTS", changed)
    return lambda version: monkeypatch.setattr(unirl, "__version__", version)


@pytest.mark.parametrize(
    ("source", "new"), [(OLD_HOOK, "unirl_register_rewards"), (OLD_ARGUMENT, "register")], ids=["hook", "argument"]
)
@pytest.mark.parametrize("version", ["0.4.0", "0.5.9"])
def test_an_old_name_works_with_a_warning(install, changes, source: str, new: str, version: str) -> None:
    install("oldplug", source)
    changes(version)
    told = rf"oldplug \(oldplug 1.0\): .* is '{new}' since unirl 0.4; use '{new}', .* stops working with unirl 0.6"
    with pytest.warns(FutureWarning, match=told):
        host = Host()
    assert host.resolve("reward", "old") == "standins.Words"


@pytest.mark.parametrize("source", [OLD_HOOK, OLD_ARGUMENT], ids=["hook", "argument"])
@pytest.mark.parametrize("version", ["0.6.0", "1.0"])
def test_an_old_name_is_refused_after_two_minor_versions(install, changes, source: str, version: str) -> None:
    install("oldplug", source)
    changes(version)
    (failure,) = Host().failures
    assert f"the old name worked until unirl 0.6, this is {version}" in failure.reason


def test_todays_names_give_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert current("unirl_register_rewards", renamed.HOOKS, "hook", "me") == "unirl_register_rewards"
    assert not recwarn.list


def test_an_old_argument_gets_the_value_of_the_new_one(changes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "ARGUMENTS", {"unirl_validated": (Renamed("figures", "metrics", "0.4"),)})
    changes("0.4.0")
    got = []

    class Watcher:
        @hookimpl
        def unirl_validated(self, figures) -> None:
            got.append(figures)

    host = Host()
    with pytest.warns(FutureWarning):
        host.manager.register(implementations(Watcher(), "Watcher"))
    host.manager.hook.unirl_validated(metrics={"drawing": 1.0})
    assert got == [{"drawing": 1.0}]


def test_an_unmarked_function_of_an_old_name_is_pointed_out() -> None:
    module = ModuleType("plain")
    module.unirl_rewards = lambda register: None  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="'unirl_rewards' is not marked"):
        implementations(module, "plain")
