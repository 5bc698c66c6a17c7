"""Imports of `src/unirl` go in one direction, and no two modules have the same name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import unirl

SOURCE = Path(__file__).parents[1] / "src" / "unirl"
VALUES = ("errors", "examples", "types", "unicode", "plugin_outputs", "image_files")
KINDS = ("backbones", "rewards", "updates", "prompts", "judges")
ALLOWED: dict[str, tuple[str, ...]] = {
    "errors": (),
    "lazy": (),
    "output": (),
    "unicode": (),
    "plugin_outputs": (),
    "report": ("errors", "output"),
    "examples": ("errors", "unicode"),
    "image_files": ("errors",),
    "types": VALUES,
    "functional": ("types",),
    "sampling": ("types", "functional"),
    "prompts": VALUES,
    "judges": (*VALUES, "backbones.checkpoints", "prompts"),
    "backbones": (*VALUES, "functional", "sampling"),
    "rewards": (*VALUES, "functional", "backbones", "prompts", "judges"),
    "updates": (*VALUES, "functional", "backbones", "distributed"),
    "distributed": (*VALUES, "backbones", "sampling"),
    "metrics": (*VALUES, "functional", "backbones", "rewards"),
    "hooks": (*VALUES, *KINDS),
    "callbacks": (*VALUES, "lazy", "output", "functional", "backbones", "distributed", "report"),
    "training": (*VALUES, "lazy", *KINDS, "functional", "distributed", "metrics", "hooks.lifecycle"),
    "benchmark": (
        *VALUES,
        "output",
        "lazy",
        "functional",
        "backbones",
        "judges",
        "rewards",
        "training",
        "report",
        "callbacks.grids",
    ),
    "checkpoint": (*VALUES, "backbones", "distributed", "hooks"),
    "doctor": (
        *(*VALUES, *KINDS, "sampling", "distributed", "hooks", "training", "checkpoint"),
        "callbacks.missing_metrics",
    ),
    "testing": (*VALUES, *KINDS, "functional", "sampling", "distributed", "hooks", "training"),
    "cli": ("",),  # everything
    "__main__": ("cli",),
    "__init__": (*VALUES, "hooks", "backbones.lora", "backbones.sampling_config", "training", "callbacks", "benchmark"),
}
"""What each package may import besides itself. All may import `unirl.hooks` for `hookimpl`, but not its modules."""
BASES = (
    *("types", "errors", "unicode", "functional", "backbones.checkpoints", "backbones.sampling_config"),
    *(f"{kind}.base" for kind in KINDS),
)
"""What the contract of a plugin kind, its `base.py`, may import."""
REPEATED = {"__init__", "base", "backbone", "checkpoint", "modeling", "export"}
"""Module names that say the same thing in each folder: `cli/export.py` is the command of `checkpoint/export.py`."""


def modules() -> dict[str, Path]:
    """Files by dotted name below `unirl`; a package by its own name."""
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return names


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Dotted names below `unirl` that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name.removeprefix("unirl.") in MODULES else node.module for name in submodules]
        else:
            continue
        yield from (name.removeprefix("unirl.") for name in found if name.startswith("unirl."))


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(not package or f"{name}.".startswith(f"{package}.") for package in packages)


def test_imports_go_in_one_direction() -> None:
    problems = []
    for module, path in MODULES.items():
        package = module.partition(".")[0]
        assert package in ALLOWED, f"unirl.{package}: say in ALLOWED what it may import"
        for name in imports(path):
            if name != "hooks" and not is_within(name, (package, *ALLOWED[package])):
                problems.append(f"unirl.{module} imports unirl.{name}")
    assert not problems, "\n".join(problems)


def test_the_contract_of_a_plugin_kind_imports_values_and_other_contracts_only() -> None:
    problems = []
    for kind in KINDS:
        for name in imports(MODULES[f"{kind}.base"]):
            if not is_within(name, BASES):
                problems.append(f"unirl.{kind}.base imports unirl.{name}")
    assert not problems, "\n".join(problems)


def test_a_model_family_is_imported_by_itself_only() -> None:
    families = tuple(
        name for name in MODULES if name.startswith("backbones.") and (SOURCE / name.replace(".", "/")).is_dir()
    )
    assert set(families) == {"backbones.showo", "backbones.janus"}
    problems = []
    for module, path in MODULES.items():
        for name in imports(path):
            if is_within(name, families) and not is_within(module, tuple(f for f in families if is_within(name, (f,)))):
                problems.append(f"unirl.{module} imports unirl.{name}")
    assert not problems, "\n".join(problems)


def test_module_names_occur_once() -> None:
    places = defaultdict(list)
    for path in MODULES.values():
        places[path.stem].append(str(path.relative_to(SOURCE)))
    repeated = {name: where for name, where in places.items() if len(where) > 1 and name not in REPEATED}
    assert not repeated, "\n".join(f"{name}: {', '.join(where)}" for name, where in repeated.items())


def test_a_public_name_means_one_thing() -> None:
    meanings = defaultdict(dict)
    for package in ("", *(f".{name}" for name in unirl._PACKAGES)):
        module = import_module(f"unirl{package}")
        for name in module.__all__:
            value = getattr(module, name)
            meanings[name][id(value)] = f"unirl{package}.{name}"
    assert not [one for one in meanings.values() if len(one) > 1]
