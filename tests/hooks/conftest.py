"""Distributions that are installed for one test."""

import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

from unirl.hooks.host import host

BASE = """
model: {backbone: tiny, update: zero, rewards: [fixed]}
data: {prompts: fixed}
trainer:
  {max_steps: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false,
   logger: false, enable_checkpointing: false}
"""


@pytest.fixture
def standins(monkeypatch: pytest.MonkeyPatch):
    """The module `standins`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return import_module("standins")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standins):
    """Installs distributions of one module for this test; no others have plugins."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)

    def entry_points(group: str) -> list[metadata.EntryPoint]:
        found = metadata.distributions(path=[str(folder)])
        return [entry for one in found for entry in one.entry_points if entry.group == group]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    modules = set(sys.modules)
    host.cache_clear()
    yield lambda *args, **kwargs: standins.install(folder, *args, **kwargs)
    host.cache_clear()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def world(install, standins, monkeypatch: pytest.MonkeyPatch):
    """Installs the stand-ins as a plugin, and writes `base.yaml`, which uses them."""
    install("demoplug", standins.PLUGIN)
    run = import_module("unirl.cli.train")
    monkeypatch.setattr(run, "SelfImprovement", standins.Model)
    monkeypatch.setattr(run, "PromptsDataModule", standins.Data)
    monkeypatch.setattr(standins.Model, "last", None)
    Path("base.yaml").write_text(BASE)
    return standins
