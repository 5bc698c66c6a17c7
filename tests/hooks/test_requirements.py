"""`requires_plugins`: checked before anything is imported."""

from importlib import metadata
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.errors import UserError
from unirl.hooks.requirements import resolve_requirements

SOURCE = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("x", "standins:FixedReward")
"""


@pytest.fixture
def two_configs(install):
    """Two configs, with a requirement each, and the distribution `my-plug` 1.5 with the plugin `mine`."""
    install("my-plug", SOURCE, "1.5", "mine")

    def write(first: str, second: str = "{}") -> list[str]:
        Path("a.yaml").write_text(first)
        Path("b.yaml").write_text(second)
        return ["--config", "a.yaml", "--config=b.yaml"]

    return write


@pytest.mark.parametrize(
    "text", ["my-plug", "My_Plug>=1.2", "my-plug~=1.4", "absent; python_version < '3'", "my-plug[extra]>=1.5"]
)
def test_an_installed_distribution_is_accepted(two_configs, text: str) -> None:
    argv = two_configs(f'requires_plugins: ["{text}"]')
    assert resolve_requirements(argv)[:3] == argv


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent>=0.2", r"a.yaml: 'absent>=0.2' is required, but not installed; pip install --upgrade 'absent>=0.2'"),
        ("my-plug>=2", r"a.yaml: 'my-plug>=2' is required, but my-plug 1.5 is installed; pip install --upgrade"),
        ("mine", r"not installed \(the plugin 'mine' is in the distribution 'my-plug'\)"),
        ("pluggy", r"pluggy is installed, but has no plugins for unirl"),
        ("my plug", r"'my plug' is not a requirement; write it like \[unirl-shapes>=0.2, another\]"),
        ("3", r"a.yaml: requires_plugins: 3 is not a requirement"),
    ],
)
def test_a_missing_distribution_is_an_error_with_advice(two_configs, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_requirements(two_configs(f"requires_plugins: [{text}]"))


def test_the_lists_of_all_configs_are_joined(two_configs) -> None:
    argv = two_configs("requires_plugins: [my-plug]", "requires_plugins: [my-plug>=1]")
    assert resolve_requirements([*argv, "--requires_plugins+=my-plug<3"])[-1] == (
        '--requires_plugins=["my-plug", "my-plug>=1", "my-plug<3"]'
    )
    with pytest.raises(UserError, match=r"b.yaml: 'absent'"):
        resolve_requirements(two_configs("requires_plugins: [my-plug]", "requires_plugins: [absent]"))
    with pytest.raises(UserError, match=r"--requires_plugins: 'absent'"):
        resolve_requirements(["--requires_plugins", "[absent]"])


def test_a_required_plugin_must_have_loaded(two_configs, install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("badplug", "import no_such_module\n", "0.9")
    with pytest.raises(UserError, match=r"'badplug' is required; plugin 'badplug' of badplug 0.9 did not load"):
        resolve_requirements(two_configs("requires_plugins: [badplug]"))


def test_an_invalid_config_is_left_to_the_parser(two_configs) -> None:
    argv = two_configs("requires_plugins: [", "- a list")
    assert resolve_requirements([*argv, "-c", "missing.yaml"]) == [*argv, "-c", "missing.yaml"]


def test_requirements_are_checked_before_names(world, capsys: pytest.CaptureFixture[str]) -> None:
    Path("over.yaml").write_text("{requires_plugins: [absent>=0.2], model: {backbone: unheard_of}}")
    with pytest.raises(SystemExit):
        main(["fit", "--config", "base.yaml", "--config", "over.yaml"])
    error = capsys.readouterr().err
    assert error.startswith("unirl: error: over.yaml: 'absent>=0.2' is required")
    assert error.count("\n") == 1


def test_a_saved_config_keeps_its_requirements(world) -> None:
    version = metadata.version("demoplug")
    Path("over.yaml").write_text(f"{{requires_plugins: [demoplug>={version}], trainer: {{logger: null}}, name: kept}}")
    Path("more.yaml").write_text("requires_plugins: [demoplug<9]")
    main(["fit", "--config", "base.yaml", "--config", "over.yaml", "--config", "more.yaml"])
    saved = Path("runs/kept/version_0/config.yaml")
    assert f"requires_plugins:\n- demoplug>={version}\n- demoplug<9\n" in saved.read_text()
    main(["fit", "--config", str(saved)])
    assert world.Model.last is not None


@pytest.mark.parametrize("command", ["fit", "validate", "doctor"])
def test_a_command_without_options_is_an_error_of_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert "data.prompts; give them in a file: --config FILE" in captured.out + captured.err
    assert captured.err.count("\n") == 1
