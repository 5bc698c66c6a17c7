"""Loading plugins: an error names the plugin, and the other plugins still load."""

import subprocess
import sys

import pytest

from unirl.errors import UserError
from unirl.hooks.host import Host
from unirl.hooks.kinds import KINDS
from unirl.hooks.registry import Plugin
from unirl.hooks.specs import specifications, unirl_register_rewards, unirl_validated

HEAD = "from unirl import hookimpl\n"
CLASSES = {
    "unirl_register_backbones": "TinyBackbone",
    "unirl_register_rewards": "FixedReward",
    "unirl_register_updates": "ZeroUpdate",
    "unirl_register_prompts": "FixedPrompts",
    "unirl_register_judges": "AlwaysJudge",
}


def plugin(hook: str, *names: str) -> str:
    path = f"standins:{CLASSES.get(hook, 'FixedReward')}"
    body = "\n".join(f'    register("{name}", "{path}")' for name in names)
    return f"{HEAD}@hookimpl\ndef {hook}(register):\n{body}\n"


def named(host: Host, name: str) -> Plugin:
    (found,) = [one for one in host.inspected() if one.name == name]
    return found


def test_registered_names_of_all_kinds_resolve_to_class_paths(install) -> None:
    install("goodplug", HEAD + "".join(plugin(kind.hook, "thing") for kind in KINDS.values()), "2.3")
    host = Host()
    for kind in KINDS.values():
        found = host.registry[kind.name]["thing"]
        assert (found.distribution, found.version) == ("goodplug", "2.3")
        assert host.resolve(kind.name, "thing") == f"standins.{CLASSES[kind.hook]}"


def test_each_kind_names_its_base_class() -> None:
    """Also where griffe finds it, and in the documentation of its hook."""
    for kind in KINDS.values():
        base = kind.base_class()
        assert kind.base == f"{base.__module__}:{base.__qualname__}"
        public = f"{base.__module__.removesuffix('.base')}.{base.__name__}"
        assert f"`{public}`" in (specifications()[kind.hook].__doc__ or "")


def test_two_kinds_can_have_the_same_name(install) -> None:
    install("twokinds", plugin("unirl_register_rewards", "same") + plugin("unirl_register_prompts", "same"))
    host = Host()
    assert (host.resolve("reward", "same"), host.resolve("prompts", "same")) == (
        "standins.FixedReward",
        "standins.FixedPrompts",
    )


def test_an_unknown_name_gives_the_nearest(install) -> None:
    install("goodplug", plugin("unirl_register_judges", "shapes"))
    with pytest.raises(UserError, match=r"unknown judge 'shpaes'; nearest: shapes"):
        Host().resolve("judge", "shpaes")


def test_a_plugin_has_its_registrations_and_lifecycle_hooks(install) -> None:
    lifecycle = "@hookimpl\ndef unirl_validated(metrics): ...\n"
    install("goodplug", plugin("unirl_register_rewards", "one", "two") + lifecycle, "2.3", "entry")
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
            "unirl_register_rewards of unirl 0.1.0 has no argument 'registry'; its arguments are: register",
        ),
        (
            plugin("unirl_register_rewards", "x").replace("@hookimpl\n", ""),
            "'unirl_register_rewards' is not marked as a hook",
        ),
        (plugin("unirl_register_rewards", "dotted.name"), "a name must not be empty and must not contain dots"),
        (plugin("unirl_register_rewards", "x", "x"), "'x' is registered twice"),
        (plugin("unirl_register_rewards", "x").replace(":FixedReward", ""), "package.module:Class"),
    ],
    ids=["import", "syntax", "exit", "hook-raises", "misspelt", "argument", "unmarked", "dotted", "twice", "no-class"],
)
def test_a_plugin_that_fails_is_recorded_and_stops_no_other(install, source: str, reason: str) -> None:
    install("badplug", source, "0.9")
    install("zgoodplug", plugin("unirl_register_rewards", "fine"))
    host = Host()
    assert host.checked().resolve("reward", "fine") == "standins.FixedReward"
    (failure,) = host.failures
    assert (failure.name, failure.distribution, failure.version) == ("badplug", "badplug", "0.9")
    assert reason in failure.reason
    assert "\n" not in failure.reason
    with pytest.raises(UserError, match=r"unknown reward 'missing'.*'badplug' of badplug 0.9 did not load"):
        host.resolve("reward", "missing")


def test_a_plugin_that_fails_while_registering_registers_nothing(install) -> None:
    install("half", plugin("unirl_register_rewards", "early") + "    raise ValueError('late')\n")
    assert "early" not in Host().registry["reward"]


def test_a_missing_class_is_an_error_only_if_it_is_used(install) -> None:
    install("half", plugin("unirl_register_rewards", "fine") + '    register("gone", "standins:Gone")\n', "0.9")
    host = Host()
    assert host.checked().resolve("reward", "fine") == "standins.FixedReward"
    assert named(host, "half").status == "failed"
    assert named(host, "half").reason.startswith("reward 'gone': ")
    with pytest.raises(UserError, match=r"the reward 'gone' of half 0.9 \(standins:Gone\) cannot be used: "):
        host.resolve("reward", "gone")


def test_two_plugins_that_register_the_same_name_are_an_error_with_both(install) -> None:
    install("plugone", plugin("unirl_register_rewards", "twice"), "1.1")
    install("plugtwo", plugin("unirl_register_rewards", "twice"), "2.2")
    host = Host()
    message = (
        r"two plugins register the reward 'twice': plugone 1.1 \(standins:FixedReward\) and plugtwo 2.2 .*-p no:plugtwo"
    )
    with pytest.raises(UserError, match=message) as caught:
        host.checked()
    assert str(caught.value).count("twice") == 1
    assert [one.status for one in host.inspected()] == ["failed", "failed"]


def test_two_distributions_with_the_same_entry_point_both_fail(install) -> None:
    install("plugone", plugin("unirl_register_rewards", "one"), "1.1", "shared")
    install("plugtwo", plugin("unirl_register_rewards", "two"), "2.2", "shared")
    install("zgoodplug", plugin("unirl_register_rewards", "fine"))
    host = Host()
    first, second, _ = host.checked().plugins
    assert "plugtwo 2.2 has a plugin named 'shared', too" in first.reason
    assert "plugone 1.1" in second.reason
    assert host.resolve("reward", "fine") == "standins.FixedReward"
    with pytest.raises(UserError, match=r"unknown reward 'one'.*plugone 1.1 did not load"):
        host.resolve("reward", "one")


def test_the_builtin_plugin_loads_even_if_another_has_its_name(install) -> None:
    install("lightning-unirl", "", "0.1", "builtin", "unirl.hooks.builtins")
    install("aaa", plugin("unirl_register_rewards", "fine"), entry="builtin")
    assert [one.status for one in Host().plugins] == ["loaded", "failed"]
    assert Host().resolve("reward", "keyword") == "unirl.rewards.keyword.Keyword"


def test_hooks_have_a_version_and_a_stability() -> None:
    assert (unirl_register_rewards.since, unirl_register_rewards.stability) == ("0.1", "stable")  # type: ignore[attr-defined]
    assert unirl_validated.stability == "experimental"  # type: ignore[attr-defined]


def test_listing_plugins_imports_nothing_heavy() -> None:
    commands = [["--help"], ["plugins"], ["plugins", "--json"], ["plugins", "show", "showo"]]
    code = (
        f"import sys; from unirl.cli.main import main; [main(command) for command in {commands}]\n"
        "sys.exit(', '.join({'torch', 'lightning', 'transformers', 'numpy'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
