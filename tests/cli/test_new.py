"""`unirl new`: the packages that it writes are installed, tested and run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unirl.cli.main import main
from unirl.cli.new import PACKAGES
from unirl.hooks.kinds import KINDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = {
    "backbone": "patches",
    "reward": "brightness",
    "update": "rein-force",
    "prompts": "one_color",
    "judge": "colors",
    "world": "color-world",
}


def new(kind: str, name: str, into: Path) -> Path:
    main(["new", kind, name, "--into", str(into)])
    return into / f"unirl-{name}"


def installed(folder: Path, site: Path) -> dict[str, str]:
    """An environment in which a package is installed: its sources and metadata are on the path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = [f"{name} = {target}" for name, target in project["entry-points"]["unirl"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[unirl]", *entries, ""]))
    path = [str(folder / "src"), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


def run(folder: Path, environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


UNIRL = ("-c", "import sys; from unirl.cli.main import main; main(sys.argv[1:])")
QUICK = ("--trainer.max_steps", "1", "--data.num_val_prompts", "6", "--model.evaluation.num_understanding", "6")


SCRIPT = """
import os, sys
import pytest
from unirl.cli.main import main
quick, folders = sys.argv[1].split(), sys.argv[2:]
options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
if pytest.main([*options, *(f"{folder}/tests" for folder in folders)]):
    sys.exit(1)
for folder in folders:
    os.chdir(folder)
    main(["fit", "--config", "example.yaml", *quick])
"""
"""Runs tests and examples in one process: most of the time of each would be that of its imports."""


def test_packages_pass_their_tests_and_run_their_examples(tmp_path: Path) -> None:
    """A world has the code of both prompts and judge."""
    kinds = sorted(PACKAGES.keys() - {"prompts", "judge"})
    folders = [new(kind, NAMES[kind], tmp_path / "made") for kind in kinds]
    environments = [installed(folder, tmp_path / "site") for folder in folders]
    path = os.pathsep.join(dict.fromkeys(os.pathsep.join(one["PYTHONPATH"] for one in environments).split(os.pathsep)))
    environment = environments[0] | {"PYTHONPATH": path}
    listed = run(tmp_path, environment, *UNIRL, "plugins")
    assert all(f"unirl-{NAMES[kind]}" in listed for kind in kinds)
    printed = run(tmp_path, environment, "-c", SCRIPT, " ".join(QUICK), *map(str, folders))
    assert re.search(r"^\d+ passed", printed, re.MULTILINE)
    assert printed.count("overall") == len(folders)
    assert all(list(folder.glob("runs/*/version_0/pretrained")) for folder in folders)


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_is_complete_and_passes_ruff(kind: str, tmp_path: Path) -> None:
    folder = new(kind, "a-name-like-this", tmp_path)
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert not [file for file in files if "$" in file.read_text() or "template" in file.name]
    assert {".gitignore", "LICENSE", "README.md", "ci.yml", "example.yaml"} <= {file.name for file in files}
    for command in (["check", "--select", "E,F,I,B,UP,SIM,C4,RUF,PT"], ["format", "--check"]):
        run(folder, dict(os.environ), "-m", "ruff", command[0], "--no-cache", *command[1:], ".")


@pytest.mark.parametrize("kind", PACKAGES)
def test_what_describes_a_package_stays_true_when_its_code_changes(kind: str, tmp_path: Path) -> None:
    folder = new(kind, "a-name", tmp_path)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    described = [
        project["description"],
        (folder / "README.md").read_text(),
        (folder / "src/unirl_a_name/__init__.py").read_text(),
    ]
    for text in described:
        for part in PACKAGES[kind]:
            assert part in text
            assert KINDS[part].example not in text
            assert "a-name" in text
    (init,) = ast.parse(described[2]).body
    assert isinstance(init, ast.Expr)


def test_a_world_registers_prompts_and_judge_under_one_name(tmp_path: Path) -> None:
    source = (new("world", "stripes", tmp_path) / "src/unirl_stripes/plugin.py").read_text()
    registered = re.findall(r'def (\w+)\(.*\n    register\("stripes", "unirl_stripes\.(.*)"\)', source)
    assert registered == [
        ("unirl_register_prompts", "prompts:StripesPrompts"),
        ("unirl_register_judges", "judge:StripesJudge"),
    ]


def test_it_prints_all_files_and_the_next_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = new("reward", "brightness", tmp_path)
    files, _, after = capsys.readouterr().out.partition("next:")
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert {line.split()[0] for line in files.splitlines()[1:] if line} == written
    assert [line.strip() for line in after.strip().splitlines()] == [
        f'cd {folder} && pip install -e ".[test]"',
        "pytest",
        "unirl fit --config example.yaml",
    ]


def test_a_name_that_the_templates_use_gets_another_class_name(tmp_path: Path) -> None:
    folder = new("reward", "tensor", tmp_path)
    assert "class MyTensor(Reward)" in (folder / "src/unirl_tensor/reward.py").read_text()


ERRORS = {
    "kind": (["rewrad", "x"], "no plugin kind 'rewrad'; nearest: reward"),
    "name": (["reward", "3d"], "NAME '3d' is not valid"),
    "dots": (["reward", "a.b"], "NAME 'a.b' is not valid"),
    "path": (["reward", "../x"], "NAME '../x' is not valid"),
    "keyword": (["reward", "class"], "NAME 'class' has another meaning in Python or in YAML"),
    "YAML word": (["reward", "null"], "NAME 'null' has another meaning in Python or in YAML"),
    "module": (["reward", "torch"], "NAME 'torch' would shadow the module 'torch'"),
    "package": (["reward", "shapes"], "NAME 'shapes' would shadow the module 'unirl_shapes'"),
    "registered": (["judge", "shapes"], "the judge 'shapes' is already registered by unirl-shapes "),
    "no name": (["reward"], "the following arguments are required: NAME"),
    "option": (["reward", "x", "--inot", "."], "no option 'inot'; nearest: into"),
    "no folder": (["reward", "x", "--into", "file"], "cannot write 'file/unirl-x' (Not a directory)"),
    "not empty": (["reward", "full"], "'unirl-full' already exists; nothing is overwritten"),
    "a file": (["reward", "flat"], "'unirl-flat' already exists; nothing is overwritten"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_and_nothing_is_written(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file", "unirl-flat", "unirl-full/mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["new", *arguments])
    error = capsys.readouterr().err
    assert (stopped.value.code, error.count("\n")) == (2, 1)
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SystemExit):
        new("reward", "x", tmp_path)
    assert "(Permission denied); choose another folder with --into" in capsys.readouterr().err


def test_an_empty_folder_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "unirl-x").mkdir()
    assert (new("judge", "x", tmp_path) / "pyproject.toml").is_file()


@pytest.mark.parametrize("arguments", [["--help"], ["reward", "brightness"]])
def test_it_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = f"from unirl.cli.main import main\ntry:\n    main(['new', *{arguments}])\nexcept SystemExit:\n    pass\n"
    code += "import sys; assert 'torch' not in sys.modules"
    assert "brightness" in run(tmp_path, dict(os.environ), "-c", code)
