"""What a fresh process has imported after each of several imports, and that Lightning's keep the form of warnings.

The imports are those of one process, one after another: most of the time of a process each would be that of torch.
"""

import importlib
import json
import subprocess
import sys
from typing import Any

import pytest

import unirl

STEPS = {
    "unirl": "import unirl",
    "values": "import unirl.prompts, unirl.rewards",
    "backbones": "import unirl.backbones",
    "sampling": "import unirl.callbacks.grids, unirl.cli.sample_examples, unirl.functional.seeding\n"
    "import unirl.training.best_of, unirl.backbones.showo.backbone",
    "warnings": "import unirl.cli.main as cli, warnings\n"
    "cli._function('fit')\n"
    "from unirl.training import lengths\n"
    "exec(compile('from warnings import warn\\nwarn(\"ours, in\\\\ntwo lines\")', lengths.__file__, 'exec'))\n"
    "warnings.warn('another\\'s')",
}
SCRIPT = f"""
import contextlib, io, json, sys, traceback
found, names = {{}}, {{}}
for step, code in {STEPS!r}.items():
    error, shown = "", io.StringIO()
    with contextlib.redirect_stderr(shown):
        try:
            exec(compile(code, "<string>", "exec"), names)
        except BaseException:
            error = traceback.format_exc()
    found[step] = {{"modules": sorted(sys.modules), "error": error, "stderr": shown.getvalue()}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def steps() -> dict[str, Any]:
    """For each step the modules that are imported after it, its error, and what it wrote to stderr."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def imported(step: dict[str, Any], *packages: str) -> list[str]:
    """Which modules of some packages a step has imported."""
    assert not step["error"], step["error"]
    return [name for name in step["modules"] if any(f"{name}.".startswith(f"{package}.") for package in packages)]


def test_the_package_imports_no_torch(steps: dict[str, Any]) -> None:
    assert imported(steps["unirl"], "unirl")
    assert imported(steps["unirl"], "torch") == []


def test_inflect_is_imported_only_when_a_word_is_inflected(steps: dict[str, Any]) -> None:
    assert imported(steps["values"], "inflect") == []


def test_backbones_import_neither_models_nor_transformers(steps: dict[str, Any]) -> None:
    heavy = ("transformers", "peft", "unirl.backbones.showo", "unirl.backbones.janus")
    assert imported(steps["backbones"], *heavy) == []


def test_sampling_imports_no_trainer(steps: dict[str, Any]) -> None:
    assert imported(steps["sampling"], "lightning", "torchmetrics", "timm") == []


def test_public_packages_are_attributes_of_unirl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing has imported them, which would set the attributes."""
    for name in ("training", "updates"):
        importlib.import_module(f"unirl.{name}")
        monkeypatch.delattr(unirl, name)
    assert unirl.training.Rollouts
    assert unirl.updates.GRPO


def test_a_warning_is_one_line_without_code(steps: dict[str, Any]) -> None:
    """Also after the import of Lightning, which sets a form of its own."""
    assert imported(steps["warnings"], "lightning")
    ours, other = [line for line in steps["warnings"]["stderr"].splitlines() if line]
    assert ours == "warning: ours, in two lines"
    assert other.startswith("warning: another's (<string>:")
