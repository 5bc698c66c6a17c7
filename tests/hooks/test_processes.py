"""All processes of a run load the same plugins, launched or spawned."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, multiprocessing, os, pickle, subprocess, sys


def plugins():
    from unirl.hooks.host import host

    return [(one.name, one.status) for one in host().plugins], sorted(host().registry["reward"])


def child(pickled, queue):
    thing = pickle.loads(pickled)  # before anything of unirl is imported
    queue.put((type(thing).__module__, plugins()))


def spawned():
    import mine

    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(pickle.dumps(mine.Thing()), queue))
    process.start()
    process.join()
    return queue.get()


def command(argv):
    here = plugins()
    launched = subprocess.run([sys.executable, __file__, "launched"], stdout=subprocess.PIPE, check=True, text=True)
    print(json.dumps({"here": here, "launched": json.loads(launched.stdout), "spawned": spawned()}))


if __name__ == "__main__":
    if sys.argv[1:] == ["launched"]:
        print(json.dumps(plugins()))
    else:
        from unirl.cli import main as cli

        cli.COMMANDS["try"] = ("for this test", "__main__:command")
        cli.main(["try", *sys.argv[1:]])
        assert "UNIRL_PLUGIN_OPTIONS" not in os.environ
"""
FILE = """
from unirl import hookimpl

class Thing: ...

@hookimpl
def unirl_register_rewards(register):
    register("mine", "mine:Thing")
"""


@pytest.mark.parametrize("blocked", [False, True])
def test_child_processes_load_the_same_plugins(standins, tmp_path: Path, blocked: bool) -> None:
    for folder in ("site", "files", "script"):
        (tmp_path / folder).mkdir()
    standins.install(tmp_path / "site", "oneplug", FILE.replace('"mine", "mine:', '"one", "oneplug:'))
    (tmp_path / "files" / "mine.py").write_text(FILE)
    (tmp_path / "script" / "try_it.py").write_text(SCRIPT)
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
    options = ["--plugin", "files/mine.py", *(["-p", "no:oneplug"] if blocked else [])]
    command = [sys.executable, "script/try_it.py", *options]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True, text=True
    )
    result = json.loads(done.stdout)
    plugins, rewards = result["here"]
    assert ["oneplug", "blocked" if blocked else "loaded"] in plugins
    assert ("one" in rewards, "mine" in rewards) == (not blocked, True)
    assert result["launched"] == result["here"]
    assert result["spawned"] == ["mine", result["here"]]
