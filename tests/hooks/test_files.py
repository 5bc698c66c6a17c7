"""Single-file plugins, given by path."""

import sys
from pathlib import Path

import pytest

from unirl.errors import UserError
from unirl.hooks.host import Host
from unirl.hooks.options import parse

FILE = """
from unirl import hookimpl

@hookimpl
def unirl_register_rewards(register):
    register("mine", "standins:Words")
"""


def host(path: str) -> Host:
    return Host(parse(["--plugin", path])[0])


@pytest.fixture
def written(install, tmp_path: Path):
    """Writes a file outside the installed packages, in a folder that nothing imports from yet."""
    (tmp_path / "files").mkdir()

    def write(name: str, source: str = FILE) -> str:
        (tmp_path / "files" / name).write_text(source)
        return str(Path("files") / name)

    return write


def test_a_file_is_a_plugin_and_its_stem_a_module(written) -> None:
    loaded = host(written("my_reward.py")).checked()
    assert loaded.resolve("reward", "mine") == "standins.Words"
    assert (loaded.plugins[0].name, loaded.plugins[0].origin) == ("my_reward", "files/my_reward.py")
    assert sys.modules["my_reward"].__name__ == "my_reward"


def test_a_file_loads_where_autoload_is_off_unless_it_is_blocked(written) -> None:
    path = written("my_reward.py")
    assert Host(parse(["--plugin", path, "--no-autoload"])[0]).plugins[0].status == "loaded"
    assert Host(parse(["--plugin", path, "-p", "no:my_reward"])[0]).plugins[0].status == "blocked"


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("syntax.py", "def broken(:\n", "SyntaxError: invalid syntax (syntax.py, line 1)"),
        ("hookless.py", "x = 1\n", "it implements no hook"),
        ("json.py", FILE, "json.py would hide the module 'json'"),
        ("standins.py", FILE, "standins.py would hide the module 'standins'"),
        ("my-reward.py", FILE, "'my-reward.py' cannot be imported; name it like my_reward.py"),
        ("class.py", FILE, "cannot be imported"),
        ("plugin.txt", FILE, "cannot be imported"),
        ("misspelt.py", FILE.replace("rewards", "reward"), "no hook 'unirl_register_reward'"),
    ],
)
def test_a_file_that_cannot_be_a_plugin_stops_with_one_line(written, name: str, source: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        host(written(name, source)).checked()
    assert reason in str(caught.value)
    assert f"of files/{name} did not load" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_stops(install) -> None:
    with pytest.raises(UserError, match=r"there is no file .*nowhere.py"):
        host("nowhere.py").checked()


def test_a_file_and_a_distribution_of_one_name_are_told_apart_by_neither(written, install) -> None:
    install("taken", FILE.replace("mine", "other"), "1.2", "my_reward")
    with pytest.raises(UserError, match=r"the name 'my_reward' is also that of a plugin of taken 1.2"):
        host(written("my_reward.py")).checked()
