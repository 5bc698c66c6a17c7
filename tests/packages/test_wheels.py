"""Every package built as a wheel, installed into a new environment, and used there."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(folder.parent for folder in ROOT.glob("plugins/*/pyproject.toml"))
REGISTERED = {
    "unirl-dpo": {"update": {"best_of_n", "dpo"}},
    "unirl-emu3": {"backbone": {"emu3"}},
    "unirl-geneval": {"judge": {"geneval", "geneval2"}, "prompts": {"geneval_coco"}},
    "unirl-preference": {"reward": {"hpsv2", "pickscore", "vlm_judge"}},
    "unirl-shapes": {"judge": {"shapes"}, "prompts": {"shapes"}},
}
"""What each package registers."""


def run(*command: str | Path, cwd: Path, ok: int = 0) -> str:
    """The output of a command, without the environment variables of this test run."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "UNIRL", "PYTEST"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == ok, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The host's wheel and one of each plugin package, by distribution."""
    out = tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out)
    run(*pip, ROOT, *PLUGINS, cwd=out)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in out.glob("*.whl")}


@pytest.fixture(scope="module")
def bin(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheels. Dependencies are those of this environment: torch is large.

    Its site-packages are on the path only, so editable installs in it have no effect.
    """
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False)
    commands = home / "bin"
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")}))
    pip = (sys.executable, "-m", "pip", "--python", commands / "python", "install", "--quiet", "--no-deps")
    run(*pip, *wheels.values(), cwd=home)
    return commands


def test_every_package_is_listed() -> None:
    assert {folder.name for folder in PLUGINS} == set(REGISTERED)


def test_wheels_are_listed_with_what_they_register(bin: Path, tmp_path: Path) -> None:
    modules = [name.replace("-", "_") for name in REGISTERED]
    code = f"import {', '.join(modules)}; print(*(m.__file__ for m in ({', '.join(modules)})), sep='\\n')"
    for file in run(bin / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(file).is_relative_to(bin.parent)  # the wheel, not the working tree
    listed = {
        plugin["distribution"]: plugin for plugin in json.loads(run(bin / "unirl", "plugins", "--json", cwd=tmp_path))
    }
    for name, registered in REGISTERED.items():
        assert listed[name]["status"] == "loaded"
        assert {kind: set(names) for kind, names in listed[name]["registers"].items()} == registered


def test_everything_that_wheels_register_is_shown(bin: Path, tmp_path: Path) -> None:
    for kind, name in [(k, n) for kinds in REGISTERED.values() for k, names in kinds.items() for n in names]:
        shown = run(bin / "unirl", "plugins", "show", kind, name, cwd=tmp_path)
        assert f"{kind} {name}\n" in shown
        assert "model:" in shown or "data:" in shown  # the config snippet


def test_an_update_rule_of_a_wheel_trains_with_prompts_of_another(bin: Path, tmp_path: Path) -> None:
    config = (
        "--config",
        ROOT / "configs/showo_grpo.yaml",
        "--config",
        ROOT / "plugins/unirl-dpo/configs/showo_dpo.yaml",
    )
    small = ("--trainer.max_steps=1", "--data.prompts_per_step=2", "--model.rollout.group_size=4")
    evaluation = ("--model.evaluation.num_understanding=6", "--model.evaluation.num_diversity_prompts=0")
    few = ("--data.num_val_prompts=6", "--trainer.num_sanity_val_steps=0")
    run(bin / "unirl", "fit", *config, *small, *evaluation, *few, cwd=tmp_path)
    (exported,) = tmp_path.glob("runs/*/version_0/pretrained")
    assert (exported / "model.safetensors").is_file()
