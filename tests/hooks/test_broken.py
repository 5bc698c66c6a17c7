"""Each way of being broken: what `unirl plugins` says, and that only who uses it is stopped, before a model is made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.hooks import inspect

GOOD = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("wanted", "standins:Words")
"""
WAYS = {
    "syntax error": ("def broken(:\n", "SyntaxError: invalid syntax (badplug.py, line 1)"),
    "import error": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exit at import": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "registering hook raises": (GOOD + "    {}['x']\n", "KeyError: 'x'"),
    "class missing": (GOOD.replace("Words", "Wrods"), "reward 'wanted': "),
    "module missing": (GOOD.replace("standins", "standin"), "reward 'wanted': "),
    "misspelt hook": (GOOD.replace("rewards", "reward"), "unirl 0.1.0 has no hook 'unirl_register_reward'"),
    "unknown argument": (
        GOOD.replace("(register)", "(register, config)"),
        "unirl_register_rewards of unirl 0.1.0 has no argument 'config'; it has register",
    ),
    "hook without hookimpl": (GOOD.replace("@hookimpl\n", ""), "'unirl_register_rewards' is not marked"),
    "malformed path": (GOOD.replace(":Words", ".Words"), "an import path has a colon"),
}
USES_IT = ["--model.rewards", "wanted"]


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[dict[str, str], str]]:
    """The plugin `badplug` as `unirl plugins --json` has it, and the table."""

    def run() -> tuple[dict[str, str], str]:
        main(["plugins", "--json"])
        records = json.loads(capsys.readouterr().out)
        main(["plugins"])
        (found,) = [record for record in records if record["distribution"] == "badplug"]
        return found, capsys.readouterr().out

    return run


@pytest.fixture
def stopped(world, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line on stderr of a `fit` that stops before it makes the model."""

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["fit", "--config", "base.yaml", *args])
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert error.count("\n") == 1, error
        assert world.Model.last is None
        assert not Path("runs").exists()
        return error

    return run


@pytest.mark.parametrize(("code", "reason"), WAYS.values(), ids=WAYS)
def test_a_broken_plugin_is_listed_and_stops_only_who_uses_it(world, install, listed, stopped, code, reason) -> None:
    install("badplug", code, "0.9")
    record, table = listed()
    assert (record["status"], record["version"]) == ("failed", "0.9")
    assert reason in record["reason"]
    (line,) = [line for line in table.splitlines() if line.startswith("badplug")]
    assert " failed " in line
    assert record["reason"] in line
    error = stopped(*USES_IT)
    assert "badplug 0.9" in error
    main(["fit", "--config", "base.yaml"])
    assert world.Model.last.trainer.global_step == 1


def test_a_class_of_the_wrong_kind(world, install, listed, stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(kind: str, path: str) -> str | None:
        return "Eye is no Reward" if (kind, path) == ("reward", "standins:Eye") else None

    monkeypatch.setattr(inspect, "problem", wrong)
    install("badplug", GOOD.replace("Words", "Eye"), "0.9")
    record, _ = listed()
    assert (record["status"], record["reason"]) == ("failed", "reward 'wanted': Eye is no Reward")
    assert "the reward 'wanted' of badplug 0.9 (standins:Eye) cannot be used: Eye is no Reward" in stopped(*USES_IT)
    main(["fit", "--config", "base.yaml"])


def test_two_distributions_under_one_entry_point(world, install, listed, stopped) -> None:
    install("badplug", GOOD, "0.9", "shared")
    install("otherplug", GOOD.replace("wanted", "else"), "1.1", "shared")
    record, table = listed()
    assert record["status"] == "failed"
    assert "the name 'shared' is also that of a plugin of otherplug 1.1" in record["reason"]
    assert [line.split()[3] for line in table.splitlines() if line.startswith("shared ")] == ["failed", "failed"]
    assert "badplug 0.9" in stopped(*USES_IT)
    main(["fit", "--config", "base.yaml"])
    main(["fit", "--config", "base.yaml", *USES_IT, "-p", "no:otherplug"])
    assert [type(reward) for reward in world.Model.last.rewards] == [world.Words]


def test_two_plugins_that_register_one_name_stop_every_run_but_not_the_table(world, install, stopped, capsys) -> None:
    install("badplug", GOOD, "0.9")
    install("otherplug", GOOD, "1.1")
    sides = "two plugins register the reward 'wanted': badplug 0.9 (standins:Words) and otherplug 1.1 (standins:Words)"
    assert sides in stopped()
    with pytest.raises(SystemExit) as caught:
        main(["plugins"])
    out, error = capsys.readouterr()
    assert caught.value.code == 2
    assert [sides in line for line in out.splitlines() if "plug " in line and " failed " in line].count(True) == 2
    assert error.startswith(f"unirl: error: {sides}")
    main(["fit", "--config", "base.yaml", *USES_IT, "-p", "no:otherplug"])


def test_strict_mode_stops_a_run_that_uses_nothing_broken(install, stopped) -> None:
    install("badplug", "import no_such_module\n", "0.9")
    assert "'badplug' of badplug 0.9 did not load" in stopped("--strict-plugins")


def test_a_file_that_is_broken_stops_and_one_that_is_not_serves(world, install, stopped) -> None:
    Path("mine.py").write_text(GOOD + "import no_such_module\n")
    assert "plugin 'mine' of mine.py did not load: ModuleNotFoundError" in stopped("--plugin", "mine.py")
    Path("mine.py").write_text(GOOD)
    main(["fit", "--config", "base.yaml", *USES_IT, "--plugin", "mine.py"])
    assert [type(reward) for reward in world.Model.last.rewards] == [world.Words]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(install, monkeypatch, capsys, columns: int) -> None:
    install("badplug", "raise ValueError('word ' * 60)\n", "0.9")
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["plugins"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()).count("word") == 60
