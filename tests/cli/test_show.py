"""`unirl plugins show`: what a user reads and pastes."""

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml

from unirl.cli import show as cli_show
from unirl.cli.main import main
from unirl.cli.parser import PluginParser
from unirl.cli.show import REQUIRED, snippet
from unirl.errors import UserError
from unirl.hooks.host import Registered, host
from unirl.hooks.inspect import Parameter
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

EVERYTHING = [(kind, name) for kind, names in host().registry.items() for name in names]
BASE: dict[str, Any] = {
    "model": {"backbone": {"class_path": "showo", "init_args": {"checkpoint": "x"}}, "update": "sft", "rewards": []},
    "data": {"prompts": "geneval"},
}
FILLED_IN = {"oracle": "shapes"}
"""What a user writes in place of REQUIRED, where it is not any text."""


def show(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    main(["plugins", "show", *argv])
    return capsys.readouterr().out


def parsed(config: dict[str, Any]) -> Any:
    parser = PluginParser(exit_on_error=False)
    parser.add_class_arguments(SelfImprovement, "model")
    parser.add_class_arguments(PromptsDataModule, "data")
    merged = {section: {**BASE[section], **config.get(section, {})} for section in BASE}
    return parser.parse_string(yaml.safe_dump(merged))


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_a_snippet_says_what_the_bare_name_says(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is required filled in, it parses, and to the same as the name and nothing else."""
    text = show(capsys, kind, name)
    pasted = yaml.safe_load(text[text.index("Config to paste") :].split("\n\n", 1)[1].replace(REQUIRED, _filler(name)))
    ((section, place),) = pasted.items()
    ((key, value),) = place.items()
    written = value[0] if isinstance(value, list) else value
    needed = {one["name"]: _filler(name) for one in _json(capsys, kind, name)["parameters"] if one["required"]}
    bare = {"class_path": name, "init_args": needed}
    assert written["class_path"] == name
    assert parsed(pasted) == parsed({section: {key: [bare] if isinstance(value, list) else bare}})


def _filler(name: str) -> str:
    return FILLED_IN.get(name, "given")


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    return json.loads(show(capsys, "--json", *argv))


def test_it_prints_all_there_is_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, "showo")
    assert text.startswith(
        "backbone showo\n  class    unirl.backbones.showo.backbone:Showo\n  package  lightning-unirl "
    )
    assert "Show-o (arXiv 2408.12528) at any size" in text
    assert "\n  checkpoint       required  str\n" in text
    assert "\n  max_text_len     null      int | None\n" + " " * 19 + "Longest prompt in tokens" in text
    assert "Args:" not in text
    assert "      checkpoint: REQUIRED  # str\n" in text


def test_json_has_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(capsys, "keyword")
    assert (told["kind"], told["class"], told["problem"]) == ("reward", "unirl.rewards.keyword:Keyword", None)
    assert told["parameters"][2]["name"] == "ordered"
    assert yaml.safe_load(told["config"])["model"]["rewards"][0]["init_args"]["normalize"] is True


def test_lines_fit_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, show(capsys, "keyword").splitlines())) <= 60


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["kyword"], "no plugin is registered as 'kyword'; nearest: keyword"),
        (["backbone", "keyword"], "no backbone is registered as 'keyword'; nearest: "),
        (["shapes"], "`unirl plugins show prompts shapes` or `unirl plugins show judge shapes`"),
        (["nothing", "shapes"], "no kind 'nothing'; kinds are backbone, reward"),
        (["a", "b", "c"], "expected [KIND] NAME"),
        ([], "required: [KIND] NAME"),
    ],
)
def test_a_wrong_name_is_one_line(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plugins", "show", *argv])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert says in error
    assert error.count("\n") == 1


def test_a_name_of_two_kinds_is_shown_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "judge", "shapes").startswith("judge shapes\n")
    assert show(capsys, "shapes", "--kind", "prompts").startswith("prompts shapes\n")


def test_a_broken_class_is_shown_with_its_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = Registered("gone", "unirl.rewards:Gone", "somebodys", "0.3")
    monkeypatch.setitem(host().registry["reward"], "gone", item)
    text = show(capsys, "gone")
    assert "package  somebodys 0.3\n  problem  module 'unirl.rewards' has no class 'Gone'; nearest: " in text
    assert "class_path: gone" in text


def test_defaults_that_are_no_plain_values_are_comments() -> None:
    text = snippet("update", "mine", [Parameter("sampling", "ImageSampling", "ImageSampling()")])
    assert "# sampling: ImageSampling() by default" in text
    assert yaml.safe_load(text) == {"model": {"update": {"class_path": "mine"}}}


def test_showing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from unirl.cli.main import main\n"
        "main(['plugins', 'show', 'showo']); main(['plugins', 'show', 'clip'])\n"
        "sys.exit(', '.join({'torch', 'transformers', 'lightning'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_kinds_in_one_call_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected \[KIND\] NAME"):
        cli_show.main(["judge", "shapes", "--kind", "prompts"])
