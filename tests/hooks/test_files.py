"""Single-file plugins."""

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
    register("mine", "standins:FixedReward")
"""


def host(path: str) -> Host:
    return Host(parse(["--plugin", path])[0])


@pytest.fixture
def write(install, tmp_path: Path):
    """Writes a file in a folder that is not on the path."""
    (tmp_path / "files").mkdir()

    def write_file(name: str, source: str = FILE) -> str:
        (tmp_path / "files" / name).write_text(source)
        return str(Path("files") / name)

    return write_file


def test_a_file_is_a_plugin_and_a_module_named_after_its_stem(write) -> None:
    loaded = host(write("my_reward.py")).checked()
    assert loaded.resolve("reward", "mine") == "standins.FixedReward"
    assert (loaded.plugins[0].name, loaded.plugins[0].origin) == ("my_reward", "files/my_reward.py")
    assert sys.modules["my_reward"].__name__ == "my_reward"


def test_a_file_loads_without_autoload_unless_it_is_blocked(write) -> None:
    path = write("my_reward.py")
    assert Host(parse(["--plugin", path, "--no-autoload"])[0]).plugins[0].status == "loaded"
    assert Host(parse(["--plugin", path, "-p", "no:my_reward"])[0]).plugins[0].status == "blocked"


def test_a_file_without_a_hook_may_define_classes_for_class_paths(write) -> None:
    loaded = host(write("my_class.py", "from pathlib import Path\n\nclass Mine:\n    pass\n")).checked()
    assert (loaded.plugins[0].status, loaded.plugins[0].registers) == ("loaded", {})
    assert sys.modules["my_class"].Mine


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("syntax.py", "def broken(:\n", "SyntaxError: invalid syntax (syntax.py, line 1)"),
        ("hookless.py", "x = 1\n", "it implements no hook and defines no class"),
        ("imports.py", "from pathlib import Path\n", "it implements no hook and defines no class"),
        ("json.py", FILE, "json.py has the name of the module 'json'"),
        ("standins.py", FILE, "standins.py has the name of the module 'standins'"),
        ("my-reward.py", FILE, "'my-reward.py' cannot be imported; name it like my_reward.py"),
        ("class.py", FILE, "cannot be imported"),
        ("plugin.txt", FILE, "cannot be imported"),
        ("misspelt.py", FILE.replace("rewards", "reward"), "no hook 'unirl_register_reward'"),
    ],
)
def test_an_invalid_file_is_an_error_of_one_line(write, name: str, source: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        host(write(name, source)).checked()
    assert reason in str(caught.value)
    assert f"of files/{name} did not load" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(install) -> None:
    with pytest.raises(UserError, match=r"there is no file .*nowhere.py"):
        host("nowhere.py").checked()


def test_a_file_with_the_name_of_an_installed_plugin_is_an_error(write, install) -> None:
    install("taken", FILE.replace("mine", "other"), "1.2", "my_reward")
    with pytest.raises(UserError, match=r"taken 1.2 has a plugin named 'my_reward', too"):
        host(write("my_reward.py")).checked()
