"""Loading plugins: what one of them does wrong must name it and spare the others."""

import subprocess
import sys

import pytest

from unirl.errors import UserError
from unirl.hooks.host import KINDS, Host, Plugin
from unirl.hooks.specs import unirl_register_rewards, unirl_validated

HEAD = "from unirl import hookimpl\n"
CLASSES = dict(zip(KINDS.values(), ["Tiny", "Words", "Plain", "Fixed", "Eye"], strict=True))


def plugin(hook: str, *names: str) -> str:
    path = f"standins:{CLASSES.get(hook, 'Words')}"
    body = "\n".join(f'    register("{name}", "{path}")' for name in names)
    return f"{HEAD}@hookimpl\ndef {hook}(register):\n{body}\n"


def named(host: Host, name: str) -> Plugin:
    (found,) = [one for one in host.inspected() if one.name == name]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_registered_name_resolves_to_its_class_path(install, kind: str) -> None:
    install("goodplug", plugin(KINDS[kind], "thing"), "2.3")
    found = Host().registry[kind]["thing"]
    assert (found.distribution, found.version) == ("goodplug", "2.3")
    assert Host().resolve(kind, "thing") == f"standins.{CLASSES[KINDS[kind]]}"


def test_one_name_may_serve_two_kinds(install) -> None:
    install("twokinds", plugin("unirl_register_rewards", "same") + plugin("unirl_register_prompts", "same"))
    host = Host()
    assert (host.resolve("reward", "same"), host.resolve("prompts", "same")) == ("standins.Words", "standins.Fixed")


def test_an_unknown_name_offers_the_nearest(install) -> None:
    install("goodplug", plugin("unirl_register_judges", "shapes"))
    with pytest.raises(UserError, match=r"unknown judge 'shpaes'; nearest: shapes"):
        Host().resolve("judge", "shpaes")


def test_a_plugin_tells_what_it_registers_and_which_hooks_it_implements(install) -> None:
    watch = "@hookimpl\ndef unirl_validated(metrics): ...\n"
    install("goodplug", plugin("unirl_register_rewards", "one", "two") + watch, "2.3", "entry")
    found = named(Host(), "entry")
    assert (found.distribution, found.version, found.value, found.status) == ("goodplug", "2.3", "goodplug", "loaded")
    assert {kind: [item.name for item in items] for kind, items in found.registers.items()} == {
        "reward": ["one", "two"]
    }
    assert found.hooks == ("unirl_validated",)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:\n", "SyntaxError: invalid syntax (badplug.py, line 1)"),
        ("raise SystemExit('go away')\n", "SystemExit: go away"),
        (HEAD + "@hookimpl\ndef unirl_register_rewards(register):\n    1 / 0\n", "ZeroDivisionError"),
        (
            plugin("unirl_register_reward", "x"),
            "unirl 0.1.0 has no hook 'unirl_register_reward'; nearest: unirl_register_rewards",
        ),
        (
            HEAD + "@hookimpl\ndef unirl_register_rewards(registry): ...\n",
            "unirl_register_rewards of unirl 0.1.0 has no argument 'registry'; it has register",
        ),
        (plugin("unirl_register_rewards", "x").replace("@hookimpl\n", ""), "'unirl_register_rewards' is not marked"),
        (plugin("unirl_register_rewards", "dotted.name"), "a name is not empty and has no dots"),
        (plugin("unirl_register_rewards", "x", "x"), "'x' is registered twice"),
        (plugin("unirl_register_rewards", "x").replace(":Words", ""), "package.module:Class"),
    ],
    ids=["import", "syntax", "exit", "hook-raises", "misspelt", "argument", "unmarked", "dotted", "twice", "no-class"],
)
def test_a_plugin_that_fails_is_recorded_and_stops_nothing(install, source: str, reason: str) -> None:
    install("badplug", source, "0.9")
    install("zgoodplug", plugin("unirl_register_rewards", "fine"))
    host = Host()
    assert host.checked().resolve("reward", "fine") == "standins.Words"
    (failure,) = host.failures
    assert (failure.name, failure.distribution, failure.version) == ("badplug", "badplug", "0.9")
    assert reason in failure.reason
    assert "\n" not in failure.reason
    with pytest.raises(UserError, match=r"unknown reward 'missing'.*'badplug' of badplug 0.9 did not load"):
        host.resolve("reward", "missing")


def test_a_plugin_that_fails_halfway_registers_nothing(install) -> None:
    install("half", plugin("unirl_register_rewards", "early") + "    raise ValueError('late')\n")
    assert "early" not in Host().registry["reward"]


def test_a_class_that_does_not_exist_fails_only_where_it_is_asked_for(install) -> None:
    install("half", plugin("unirl_register_rewards", "fine") + '    register("gone", "standins:Gone")\n', "0.9")
    host = Host()
    assert host.checked().resolve("reward", "fine") == "standins.Words"
    assert named(host, "half").status == "failed"
    assert named(host, "half").reason.startswith("reward 'gone': ")
    with pytest.raises(UserError, match=r"the reward 'gone' of half 0.9 \(standins:Gone\) cannot be used: "):
        host.resolve("reward", "gone")


def test_two_plugins_with_one_name_are_refused_by_both_names(install) -> None:
    install("plugone", plugin("unirl_register_rewards", "twice"), "1.1")
    install("plugtwo", plugin("unirl_register_rewards", "twice"), "2.2")
    host = Host()
    said = r"two plugins register the reward 'twice': plugone 1.1 \(standins:Words\) and plugtwo 2.2 .*-p no:plugtwo"
    with pytest.raises(UserError, match=said) as caught:
        host.checked()
    assert str(caught.value).count("twice") == 1
    assert [one.status for one in host.inspected()] == ["failed", "failed"]


def test_two_distributions_under_one_entry_point_both_fail_and_name_each_other(install) -> None:
    install("plugone", plugin("unirl_register_rewards", "one"), "1.1", "shared")
    install("plugtwo", plugin("unirl_register_rewards", "two"), "2.2", "shared")
    install("zgoodplug", plugin("unirl_register_rewards", "fine"))
    host = Host()
    first, second, _ = host.checked().plugins
    assert "the name 'shared' is also that of a plugin of plugtwo 2.2" in first.reason
    assert "plugone 1.1" in second.reason
    assert host.resolve("reward", "fine") == "standins.Words"
    with pytest.raises(UserError, match=r"unknown reward 'one'.*plugone 1.1 did not load"):
        host.resolve("reward", "one")


def test_the_frameworks_own_plugin_loads_whoever_has_its_name(install) -> None:
    install("lightning-unirl", "", "0.1", "builtin", "unirl.hooks.builtins")
    install("aaa", plugin("unirl_register_rewards", "fine"), entry="builtin")
    assert [one.status for one in Host().plugins] == ["loaded", "failed"]
    assert Host().resolve("reward", "keyword") == "unirl.rewards.keyword.Keyword"


def test_hooks_tell_since_when_and_whether_they_stay() -> None:
    assert (unirl_register_rewards.since, unirl_register_rewards.stability) == ("0.1", "stable")  # type: ignore[attr-defined]
    assert unirl_validated.stability == "experimental"  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [["--help"], ["plugins"], ["plugins", "--json"]])
def test_listing_imports_nothing_heavy(command: list[str]) -> None:
    heavy = "{'torch', 'lightning', 'transformers', 'numpy'}"
    code = f"import sys; from unirl.cli.main import main; main({command}); sys.exit(str({heavy} & set(sys.modules) or '') or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
