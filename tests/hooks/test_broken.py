"""Broken plugins: `unirl plugins` lists them, and only runs that use them stop, before a model is made."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.doctor.environment import check_import_name
from unirl.hooks import inspect
from unirl.rewards.scoring import distribution_of

GOOD = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("wanted", "standins:FixedReward")
"""
BROKEN = {
    "syntax error": ("def broken(:\n", "SyntaxError: invalid syntax (badplug.py, line 1)"),
    "import error": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exit at import": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "registering hook raises": (GOOD + "    {}['x']\n", "KeyError: 'x'"),
    "class missing": (GOOD.replace("FixedReward", "FixedRewrad"), "reward 'wanted': "),
    "module missing": (GOOD.replace("standins", "standin"), "reward 'wanted': "),
    "misspelt hook": (GOOD.replace("rewards", "reward"), "unirl 0.1.0 has no hook 'unirl_register_reward'"),
    "unknown argument": (
        GOOD.replace("(register)", "(register, config)"),
        "unirl_register_rewards of unirl 0.1.0 has no argument 'config'; its arguments are: register",
    ),
    "hook without hookimpl": (GOOD.replace("@hookimpl\n", ""), "'unirl_register_rewards' is not marked"),
    "malformed path": (GOOD.replace(":FixedReward", ".FixedReward"), "expected an import path with a colon"),
}
USE = ["--model.rewards", "wanted"]


@pytest.fixture
def list_plugin(capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[dict[str, str], str]]:
    """Returns the plugin `badplug` of `unirl plugins --json`, and the table of `unirl plugins`."""

    def run() -> tuple[dict[str, str], str]:
        main(["plugins", "--json"])
        records = json.loads(capsys.readouterr().out)
        main(["plugins"])
        (found,) = [record for record in records if record["distribution"] == "badplug"]
        return found, capsys.readouterr().out

    return run


@pytest.fixture
def failing_fit(world, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `fit`, which must stop before a model is made, and returns its one line on stderr."""

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


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_listed_and_stops_only_runs_that_use_it(
    world, install, list_plugin, failing_fit, code: str, reason: str
) -> None:
    install("badplug", code, "0.9")
    record, table = list_plugin()
    assert (record["status"], record["version"]) == ("failed", "0.9")
    assert reason in record["reason"]
    (line,) = [line for line in table.splitlines() if line.startswith("badplug")]
    assert " failed " in line
    assert record["reason"] in line
    error = failing_fit(*USE)
    assert "badplug 0.9" in error
    main(["fit", "--config", "base.yaml"])
    assert world.Model.last.trainer.global_step == 1


def test_a_class_of_the_wrong_kind(world, install, list_plugin, failing_fit, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(kind: str, path: str) -> str | None:
        return "AlwaysJudge is not a Reward" if (kind, path) == ("reward", "standins:AlwaysJudge") else None

    monkeypatch.setattr(inspect, "problem", wrong)
    install("badplug", GOOD.replace("FixedReward", "AlwaysJudge"), "0.9")
    record, _ = list_plugin()
    assert (record["status"], record["reason"]) == ("failed", "reward 'wanted': AlwaysJudge is not a Reward")
    assert (
        "the reward 'wanted' of badplug 0.9 (standins:AlwaysJudge) cannot be used: AlwaysJudge is not a Reward"
        in failing_fit(*USE)
    )
    main(["fit", "--config", "base.yaml"])


def test_two_distributions_with_the_same_entry_point(world, install, list_plugin, failing_fit) -> None:
    install("badplug", GOOD, "0.9", "shared")
    install("otherplug", GOOD.replace("wanted", "other"), "1.1", "shared")
    record, table = list_plugin()
    assert record["status"] == "failed"
    assert "otherplug 1.1 has a plugin named 'shared', too" in record["reason"]
    assert [line.split()[3] for line in table.splitlines() if line.startswith("shared ")] == ["failed", "failed"]
    assert "badplug 0.9" in failing_fit(*USE)
    main(["fit", "--config", "base.yaml"])
    main(["fit", "--config", "base.yaml", *USE, "-p", "no:otherplug"])
    assert [type(reward) for reward in world.Model.last.rewards] == [world.FixedReward]


def test_two_plugins_that_register_the_same_name_stop_every_run_but_not_the_table(
    world, install, failing_fit, capsys
) -> None:
    install("badplug", GOOD, "0.9")
    install("otherplug", GOOD, "1.1")
    items = "badplug 0.9 (standins:FixedReward) and otherplug 1.1 (standins:FixedReward)"
    conflict = f"two plugins register the reward 'wanted': {items}"
    assert conflict in failing_fit()
    with pytest.raises(SystemExit) as caught:
        main(["plugins"])
    out, error = capsys.readouterr()
    assert caught.value.code == 2
    assert [conflict in line for line in out.splitlines() if "plug " in line and " failed " in line].count(True) == 2
    assert error.startswith(f"unirl: error: {conflict}")
    main(["fit", "--config", "base.yaml", *USE, "-p", "no:otherplug"])


def test_strict_mode_stops_runs_that_use_no_broken_plugin(install, failing_fit) -> None:
    install("badplug", "import no_such_module\n", "0.9")
    assert "'badplug' of badplug 0.9 did not load" in failing_fit("--strict-plugins")


def test_a_broken_file_stops_a_run_and_a_valid_one_is_used(world, install, failing_fit) -> None:
    Path("mine.py").write_text(GOOD + "import no_such_module\n")
    assert "plugin 'mine' of mine.py did not load: ModuleNotFoundError" in failing_fit("--plugin", "mine.py")
    Path("mine.py").write_text(GOOD)
    main(["fit", "--config", "base.yaml", *USE, "--plugin", "mine.py"])
    assert [type(reward) for reward in world.Model.last.rewards] == [world.FixedReward]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(install, monkeypatch, capsys, columns: int) -> None:
    install("badplug", "raise ValueError('word ' * 60)\n", "0.9")
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["plugins"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()).count("word") == 60


def test_what_is_left_of_a_removed_distribution_breaks_nothing(
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dist-info folder without METADATA has neither a name nor a version; one of them still lists a plugin."""
    for name, entry_points in (("left", "[unirl]\nleft = left\n"), ("empty", "")):
        info = tmp_path / "site" / f"{name}-1.0.dist-info"
        info.mkdir()
        if entry_points:
            (info / "entry_points.txt").write_text(entry_points)
    main(["plugins"])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left")]
    assert row.split()[1:4] == ["unknown", "?", "failed"]
    main(["fit", "--config", "base.yaml"])
    assert world.Model.last is not None
    assert check_import_name() == []
    assert distribution_of(world.Model.last).startswith(("demoplug", "module"))
