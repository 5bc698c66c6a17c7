"""Every package as a user gets it: built as a wheel, installed into an environment of its own, and used there."""

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
OFFERS = {
    "unirl-dpo": {"update": {"best_of_n", "dpo"}},
    "unirl-emu3": {"backbone": {"emu3"}},
    "unirl-preference": {"reward": {"hpsv2", "pickscore", "vlm_judge"}},
    "unirl-shapes": {"judge": {"shapes"}, "prompts": {"shapes"}},
}
"""What each package registers."""


def run(*command: str | Path, cwd: Path, ok: int = 0) -> str:
    """What a command prints, with nothing of this test run in its surroundings."""
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
    """The commands of an environment that holds the wheels and, borrowed, what they depend on (torch is gigabytes).

    The folder it borrows from is an entry of its path and no more: editable installs there do not reach it.
    """
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False)
    commands = home / "bin"
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path(name) for name in ("purelib", "platlib")}))
    pip = (sys.executable, "-m", "pip", "--python", commands / "python", "install", "--quiet", "--no-deps")
    run(*pip, *wheels.values(), cwd=home)
    return commands


def test_every_package_is_here() -> None:
    assert {folder.name for folder in PLUGINS} == set(OFFERS)


@pytest.mark.parametrize("name", OFFERS)
def test_a_wheel_is_listed_with_what_it_offers(bin: Path, name: str, tmp_path: Path) -> None:
    where = run(bin / "python", "-c", f"import {name.replace('-', '_')} as p; print(p.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bin.parent)  # the wheel, not the working tree
    plugins = json.loads(run(bin / "unirl", "plugins", "--json", cwd=tmp_path))
    (plugin,) = [plugin for plugin in plugins if plugin["distribution"] == name]
    assert plugin["status"] == "loaded"
    assert {kind: set(names) for kind, names in plugin["registers"].items()} == OFFERS[name]


@pytest.mark.parametrize("kind_and_name", [(k, n) for o in OFFERS.values() for k, names in o.items() for n in names])
def test_what_a_wheel_offers_is_shown(bin: Path, kind_and_name: tuple[str, str], tmp_path: Path) -> None:
    kind, name = kind_and_name
    shown = run(bin / "unirl", "plugins", "show", kind, name, cwd=tmp_path)
    assert name in shown
    assert "model:" in shown or "data:" in shown  # YAML to paste


def test_a_rule_from_a_wheel_trains_on_the_world_from_a_wheel(bin: Path, tmp_path: Path) -> None:
    config = (
        "--config",
        ROOT / "configs/showo_grpo.yaml",
        "--config",
        ROOT / "plugins/unirl-dpo/configs/showo_dpo.yaml",
    )
    small = ("--trainer.max_steps=1", "--data.prompts_per_step=2", "--model.group_size=4", "--model.num_understanding=6")
    few = ("--data.num_val_prompts=6", "--model.diversity_prompts=0", "--trainer.num_sanity_val_steps=0")
    run(bin / "unirl", "fit", *config, *small, *few, cwd=tmp_path)
    (exported,) = tmp_path.glob("runs/*/version_0/pretrained")
    assert (exported / "model.safetensors").is_file()
