"""Plugin options on the command line and in the environment."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.errors import UserError
from unirl.hooks.host import Host, host, plugin_options, reproducible_options
from unirl.hooks.options import VARIABLE, PluginOptions, from_environment, parse

REWARD = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("{0}", "standins:FixedReward")
"""


@pytest.fixture
def two(install) -> None:
    install("lightning-unirl", "", "0.1", "builtin", "unirl.hooks.builtins")
    install("dist-one", REWARD.format("one"), entry="one")
    install("dist-two", REWARD.format("two"), entry="two")


def loaded(line: str) -> list[str]:
    options, _ = parse(shlex.split(line))
    return [one.name for one in Host(options).plugins if one.status == "loaded"]


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
def test_options_decide_which_plugins_load(two, line: str, names: list[str]) -> None:
    assert loaded(line) == names


def test_a_blocked_plugin_names_the_option(two) -> None:
    options, _ = parse(["-p", "no:one", "--only-plugins", "builtin"])
    assert [one.reason for one in Host(options).plugins] == ["", "-p no:one", "not in --only-plugins builtin"]
    with pytest.raises(UserError, match=r"unknown reward 'one'.*plugin 'one' of dist-one 1.0 is blocked: -p no:one"):
        Host(options).resolve("reward", "one")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p no:onne", "-p no:onne: no plugin or distribution has this name; nearest: one"),
        ("-p dist-on", "-p dist-on: no plugin or distribution has this name; nearest: dist-one"),
        ("--only-plugins one,tow", "--only-plugins tow: no plugin or distribution has this name; nearest: two"),
        ("-p no:builtin", "-p no:builtin: built-in plugins cannot be blocked"),
        ("-p no:lightning-unirl", "built-in plugins cannot be blocked"),
        ("-p", "-p: expected the name of a plugin after it"),
        ("-p --no-autoload", "-p: expected the name of a plugin after it"),
        ("--plugin", "--plugin: expected a file after it"),
    ],
)
def test_a_wrong_option_is_an_error(two, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(line)


def test_options_can_be_anywhere_and_the_rest_is_returned() -> None:
    line = "-p a fit --model.seed -1 --strict-plugins --config x.yaml -p no:b --trace-hooks -- -p c"
    options, rest = parse(line.split())
    assert rest == ["fit", "--model.seed", "-1", "--config", "x.yaml", "--", "-p", "c"]
    assert options == PluginOptions(load=("a",), block=("b",), strict=True, trace=True)


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
def test_options_round_trip_through_the_environment(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, _ = parse(shlex.split(line))
    monkeypatch.setenv(VARIABLE, options.to_text())
    assert from_environment() == options
    assert parse(shlex.split(line), options)[0] == options  # a launched process has both


def test_the_command_line_overrides_the_environment(two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "-p no:one --no-autoload")
    with plugin_options(["plugins", "-p", "one"]) as rest:
        assert rest == ["plugins"]
        assert [one.name for one in host().plugins if one.status == "loaded"] == ["builtin", "one"]
    assert [one.name for one in host().plugins if one.status == "loaded"] == ["builtin"]


def test_a_config_states_plugin_options_that_the_environment_and_the_command_line_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, files = tmp_path / "folder" / "a.yaml", [str(tmp_path / "folder" / name) for name in ("x.py", "y z.py")]
    config.parent.mkdir()
    config.write_text("plugin_options: --plugin x.py --plugin='y z.py' -p no:a -p no:b -p no:c\n")
    monkeypatch.setenv(VARIABLE, "-p b --trace-hooks")
    for given in (["--config", str(config)], [f"--config={config}"]):
        with plugin_options(["fit", *given, "-p", "c"]) as rest:
            assert rest == ["fit", *given]
            options = from_environment()
            assert (options.files, options.block, options.load) == (tuple(files), ("a",), ("b", "c"))
            saved = reproducible_options()
    assert parse(shlex.split(saved))[0] == replace(options, trace=False)
    monkeypatch.delenv(VARIABLE)
    config.write_text(f"plugin_options: {saved}\n")
    with plugin_options(["fit", "--config", str(config)]):
        assert from_environment() == replace(options, trace=False)


@pytest.mark.parametrize("text", ["[a]", "3", "fit", "--no-autolod", "'\"'", "-p"])
def test_other_plugin_options_in_a_config_are_an_error(text: str, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(f"plugin_options: {text}\n")
    with pytest.raises(UserError, match=r"a.yaml: plugin_options .* write them as on the command line"):
        plugin_options(["fit", "--config", str(config)]).__enter__()


@pytest.mark.parametrize("text", ["fit", "--no-autolod", "'", "-p"])
def test_other_text_in_the_environment_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UserError, match=VARIABLE):
        from_environment()


def test_strict_mode_fails_for_any_broken_plugin(install, two) -> None:
    install("badplug", "import no_such_module\n")
    install("halfplug", REWARD.format("gone").replace("FixedReward", "Gone"))
    Host().checked()
    with pytest.raises(
        UserError, match=r"'badplug' of badplug 1.0.*no_such_module.*'halfplug' of halfplug 1.0.*'gone'"
    ):
        Host(PluginOptions(strict=True)).checked()
    Host(PluginOptions(strict=True, block=("badplug", "halfplug"))).checked()


def test_a_broken_plugin_that_an_option_names_is_an_error(install, two) -> None:
    install("badplug", "import no_such_module\n")
    with pytest.raises(UserError, match=r"'badplug' of badplug 1.0 did not load"):
        Host(PluginOptions(load=("badplug",))).checked()


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    options = ["-p NAME", "-p no:NAME", "--plugin FILE", "--only-plugins", "--no-autoload", "--strict-plugins"]
    assert all(option in shown for option in [*options, "--trace-hooks", VARIABLE])


def test_files_become_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options, _ = parse(["--plugin", "mine.py", "--plugin", "./mine.py"])
    assert options.files == (str(tmp_path / "mine.py"),)
