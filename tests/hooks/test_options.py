"""Which plugins load: every switch, on the command line and in the environment."""

import shlex
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.errors import UserError
from unirl.hooks.host import Host, host, with_switches
from unirl.hooks.options import VARIABLE, Switches, from_environment, parse

REWARD = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("{0}", "standins:Words")
"""


@pytest.fixture
def two(install) -> None:
    install("lightning-unirl", "", "0.1", "builtin", "unirl.hooks.builtins")
    install("dist-one", REWARD.format("one"), entry="one")
    install("dist-two", REWARD.format("two"), entry="two")


def loaded(line: str) -> list[str]:
    switches, _ = parse(shlex.split(line))
    return [one.name for one in Host(switches).plugins if one.status == "loaded"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("", ["builtin", "one", "two"]),
        ("-p no:one", ["builtin", "two"]),
        ("-p no:dist_one", ["builtin", "two"]),
        ("--only-plugins two", ["builtin", "two"]),
        ("--only-plugins=dist-one,builtin", ["builtin", "one"]),
        ("--only-plugins ''", ["builtin"]),
        ("--only-plugins two -p one", ["builtin", "one", "two"]),
        ("--no-autoload", ["builtin"]),
        ("--no-autoload -p two", ["builtin", "two"]),
        ("-p one -p no:one", ["builtin", "two"]),
        ("-p no:one -p one", ["builtin", "one", "two"]),
    ],
)
def test_a_switch_decides_what_loads(two, line: str, names: list[str]) -> None:
    assert loaded(line) == names


def test_what_is_blocked_says_by_which_switch(two) -> None:
    switches, _ = parse(["-p", "no:one", "--only-plugins", "builtin"])
    assert [one.reason for one in Host(switches).plugins] == ["", "-p no:one", "not in --only-plugins builtin"]
    with pytest.raises(UserError, match=r"unknown reward 'one'.*plugin 'one' of dist-one 1.0 is blocked: -p no:one"):
        Host(switches).resolve("reward", "one")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p no:onne", "-p no:onne: no plugin or distribution of that name; nearest: one"),
        ("-p dist-on", "-p dist-on: no plugin or distribution of that name; nearest: dist-one"),
        ("--only-plugins one,tow", "--only-plugins tow: no plugin or distribution of that name; nearest: two"),
        ("-p no:builtin", "-p no:builtin: what unirl ships itself always loads"),
        ("-p no:lightning-unirl", "what unirl ships itself always loads"),
        ("-p", "-p: expected the name of a plugin after it"),
        ("-p --no-autoload", "-p: expected the name of a plugin after it"),
        ("--plugin", "--plugin: expected a file after it"),
    ],
)
def test_a_wrong_switch_is_refused(two, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(line)


def test_switches_stand_anywhere_and_leave_the_rest_alone() -> None:
    line = "-p a fit --model.lr -1 --strict-plugins --config x.yaml -p no:b --trace-hooks -- -p c"
    switches, rest = parse(line.split())
    assert rest == ["fit", "--model.lr", "-1", "--config", "x.yaml", "--", "-p", "c"]
    assert switches == Switches(load=("a",), block=("b",), strict=True, trace=True)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-p a -p no:b",
        "--plugin 'a b.py'",
        "--only-plugins a,b",
        "--only-plugins ''",
        "--no-autoload --strict-plugins --trace-hooks",
    ],
)
def test_the_environment_says_the_same_as_the_command_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switches, _ = parse(shlex.split(line))
    monkeypatch.setenv(VARIABLE, switches.text())
    assert from_environment() == switches
    assert parse(shlex.split(line), switches)[0] == switches  # a launched process sees both


def test_the_command_line_overrules_the_environment(two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "-p no:one --no-autoload")
    with with_switches(["plugins", "-p", "one"]) as rest:
        assert rest == ["plugins"]
        assert [one.name for one in host().plugins if one.status == "loaded"] == ["builtin", "one"]
    assert [one.name for one in host().plugins if one.status == "loaded"] == ["builtin"]


@pytest.mark.parametrize("text", ["fit", "--no-autolod", "'", "-p"])
def test_an_environment_that_holds_anything_else_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UserError, match=VARIABLE):
        from_environment()


def test_strict_mode_stops_at_anything_broken(install, two) -> None:
    install("badplug", "import no_such_module\n")
    install("halfplug", REWARD.format("gone").replace("Words", "Gone"))
    Host().checked()
    with pytest.raises(
        UserError, match=r"'badplug' of badplug 1.0.*no_such_module.*'halfplug' of halfplug 1.0.*'gone'"
    ):
        Host(Switches(strict=True)).checked()
    Host(Switches(strict=True, block=("badplug", "halfplug"))).checked()


def test_a_broken_plugin_that_a_switch_names_stops(install, two) -> None:
    install("badplug", "import no_such_module\n")
    with pytest.raises(UserError, match=r"'badplug' of badplug 1.0 did not load"):
        Host(Switches(load=("badplug",))).checked()


def test_help_names_every_switch(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    switches = ["-p NAME", "-p no:NAME", "--plugin FILE", "--only-plugins", "--no-autoload", "--strict-plugins"]
    assert all(switch in shown for switch in [*switches, "--trace-hooks", VARIABLE])


def test_a_file_is_remembered_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    switches, _ = parse(["--plugin", "mine.py", "--plugin", "./mine.py"])
    assert switches.files == (str(tmp_path / "mine.py"),)
