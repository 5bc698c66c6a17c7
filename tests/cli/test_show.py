"""`unirl plugins show`: documentation, options and a config snippet."""

import json
import re
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
from unirl.hooks.host import host
from unirl.hooks.inspect import Parameter
from unirl.hooks.kinds import KINDS
from unirl.hooks.registry import Registered
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

BASE: dict[str, Any] = {
    "model": {"backbone": {"class_path": "showo", "init_args": {"checkpoint": "x"}}, "update": "sft", "rewards": []},
    "data": {"prompts": "geneval"},
}
VALUES = {"oracle": "shapes"}
"""What replaces REQUIRED, where it is not any text."""


def show(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    main(["plugins", "show", *argv])
    return capsys.readouterr().out


def parsed(config: dict[str, Any]) -> Any:
    parser = PluginParser(exit_on_error=False)
    parser.add_class_arguments(SelfImprovement, "model")
    parser.add_class_arguments(PromptsDataModule, "data")
    merged = {section: {**BASE[section], **config.get(section, {})} for section in BASE}
    return parser.parse_string(yaml.safe_dump(merged))


def test_snippets_parse_to_the_same_as_the_name_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Of everything that is registered, with required values filled in."""
    for kind, names in host().registry.items():
        for name in names:
            value = VALUES.get(name, "value")
            text = show(capsys, kind, name)
            config = yaml.safe_load(text[text.index("\nConfig") :].split("\n\n", 1)[1].replace(REQUIRED, value))
            ((section, options),) = config.items()
            ((key, plugin),) = options.items()
            assert f"{section}.{key}" == KINDS[kind].config_key
            required = {one["name"]: value for one in show_json(capsys, kind, name)["parameters"] if one["required"]}
            short = {"class_path": name, "init_args": required}
            assert (plugin[0] if isinstance(plugin, list) else plugin)["class_path"] == name
            assert parsed(config) == parsed({section: {key: [short] if isinstance(plugin, list) else short}})


def test_the_shortest_config_of_each_kind_parses() -> None:
    for kind, name in {"backbone": "showo", "reward": "keyword", "update": "sft", "prompts": "geneval"}.items():
        text = KINDS[kind].config(name)
        assert f"{name}" in text
        if kind != "backbone":  # it needs a checkpoint
            parsed(yaml.safe_load(text))


def show_json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    return json.loads(show(capsys, "--json", *argv))


def test_it_prints_documentation_options_and_config(capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, "showo")
    assert text.startswith(
        "backbone showo\n  class    unirl.backbones.showo.backbone:Showo\n  package  lightning-unirl "
    )
    assert "Show-o (arXiv 2408.12528)" in text
    assert re.search(r"\n  checkpoint +required +str\n", text)
    assert re.search(r"\n  max_text_len +null +int \| None\n +\w", text)
    assert "Args:" not in text
    assert "      checkpoint: REQUIRED  # str\n" in text


def test_json_has_the_same_content(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show_json(capsys, "keyword")
    assert (shown["kind"], shown["class"], shown["problem"]) == ("reward", "unirl.rewards.keyword:Keyword", None)
    assert shown["parameters"][2]["name"] == "ordered"
    assert yaml.safe_load(shown["config"])["model"]["rewards"][0]["init_args"]["normalize"] is True


def test_lines_fit_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, show(capsys, "keyword").splitlines())) <= 60


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["kyword"], "no plugin is registered as 'kyword'; nearest: keyword"),
        (["backbone", "keyword"], "no backbone is registered as 'keyword'; known: "),
        (["shapes"], "`unirl plugins show prompts shapes` or `unirl plugins show judge shapes`"),
        (["nothing", "shapes"], "no plugin kind 'nothing'; kinds are backbone, reward"),
        (["a", "b", "c"], "expected [KIND] NAME"),
        ([], "required: [KIND] NAME"),
    ],
)
def test_a_wrong_name_is_an_error_of_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["plugins", "show", *argv])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_name_of_two_kinds_needs_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "judge", "shapes").startswith("judge shapes\n")
    assert show(capsys, "shapes", "--kind", "prompts").startswith("prompts shapes\n")


def test_a_broken_class_is_shown_with_its_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = Registered("gone", "unirl.rewards:Gone", "otherplug", "0.3")
    monkeypatch.setitem(host().registry["reward"], "gone", item)
    text = show(capsys, "gone")
    assert "package  otherplug 0.3\n  problem  module 'unirl.rewards' has no class 'Gone'; known: " in text
    assert "class_path: gone" in text


def test_defaults_that_are_not_plain_values_are_comments() -> None:
    text = snippet("update", "mine", [Parameter("sampling", "ImageSampling", "ImageSampling()")])
    assert "# sampling: default is ImageSampling()" in text
    assert yaml.safe_load(text) == {"model": {"update": {"class_path": "mine"}}}


def test_showing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from unirl.cli.main import main\n"
        "main(['plugins', 'show', 'showo']); main(['plugins', 'show', 'clip'])\n"
        "sys.exit(', '.join({'torch', 'transformers', 'lightning'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_kinds_in_one_call_are_an_error() -> None:
    with pytest.raises(UserError, match=r"expected \[KIND\] NAME"):
        cli_show.main(["judge", "shapes", "--kind", "prompts"])


def test_options_inside_others_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = show(capsys, "grpo")
    assert re.search(r"^  loss\.epsilon +0\.2 +float$", text, re.MULTILINE)
    config = yaml.safe_load(text.split("\nConfig\n")[1])
    assert config["model"]["update"]["init_args"]["kl"] == {"beta": 0.0, "answer_beta": None}
    (loss,) = (one for one in show_json(capsys, "grpo")["parameters"] if one["name"] == "loss")
    assert {"scale_rewards", "epsilon"} <= {one["name"] for one in loss["options"]}
