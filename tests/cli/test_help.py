"""The help of commands: it names every option, and imports nothing that it does not need."""

import json
import re
import subprocess
import sys

import pytest

from unirl.cli.main import COMMANDS, main
from unirl.cli.run_options import GROUPS, TOP_LEVEL, TRAINER_DEFAULTS

HEAVY = ("torch", "lightning", "transformers", "torchmetrics", "jsonargparse")
LOADED = """
import json, sys
from unirl.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_the_pages_of_the_groups_have_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help", "all"])
    complete = capsys.readouterr().out
    assert complete.startswith("usage: unirl fit --config FILE [--config OVERLAY] [--OPTION VALUE] ...\n")
    options = set(re.findall(r"^  (?:-\w \w+, )?--([\w.]+)(?!\S*\.help)", complete, re.MULTILINE))
    options = {name for name in options if not name.endswith(".help") and name not in GROUPS}
    groups = {name.partition(".")[0] for name in options if "." in name}
    pages = "".join(printed(capsys, "fit", "--help", group) for group in groups)
    shown = {*TOP_LEVEL, *re.findall(r"^  --([\w.]+)", pages, re.MULTILINE)}
    assert "model.rollout.group_size" in options
    assert options - shown == set()
    assert shown - options <= {"model.rollout", "model.evaluation", "data.adaptive", *TOP_LEVEL}
    # What is not a user's concern, or is refused, is in neither.
    assert "`NAME.part`" not in complete
    assert "best:" not in complete
    assert "registry" not in complete.partition("--ckpt_path")[2]


def test_the_overview_is_short_and_names_all_groups_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    page = printed(capsys, "fit", "--config", "any.yaml", "--help")
    assert len(page.splitlines()) < 60
    assert {"--model", "--data", "--trainer", "--guards", *(f"--{name}" for name in TOP_LEVEL)} <= set(page.split())
    assert printed(capsys, "validate", "-h").startswith("usage: unirl validate ")
    for name, default in TRAINER_DEFAULTS.items():
        assert f"--trainer.{name} " in (lines := printed(capsys, "fit", "--help", "trainer"))
        assert str(default).lower() in re.search(rf"--trainer\.{name} .*", lines)[0]


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command, group, message in (
        ("fit", "modle", "fit --help: no group of options 'modle'; nearest: model"),
        ("doctor", "xyz", "doctor --help: no group of options 'xyz'; known: data, export, guards, "),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help", group])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    loaded = [sys.executable, "-c", LOADED.format(heavy=HEAVY), command, "--help"]
    out = subprocess.run(loaded, capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"usage: unirl {command}")
    assert json.loads(out.splitlines()[-1]) == []


def test_the_package_is_a_command() -> None:
    command = [sys.executable, "-m", "unirl", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("unirl ")
