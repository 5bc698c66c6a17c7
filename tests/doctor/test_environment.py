"""Checks of the machine: disk, installed distributions."""

import math
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from unirl.doctor import environment
from unirl.doctor.environment import check_disk, check_import_name


def test_a_folder_that_does_not_exist_yet_is_checked_and_not_made(tmp_path: Path) -> None:
    (finding,) = check_disk(tmp_path / "runs" / "new", checkpoint_bytes=1000, max_checkpoints=2)
    assert finding.level == "ok"
    assert finding.text.startswith("2 checkpoints at once, 1.0 kB each")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (finding,) = check_disk(tmp_path / "file" / "runs")
    assert finding.level == "error"
    assert "cannot be written" in finding.text


def test_checkpoints_that_do_not_fit_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2500))
    levels = [check_disk(tmp_path, 1000, count)[0].level for count in (2, 3, math.inf)]
    assert levels == ["ok", "error", "warning"]
    assert check_disk(tmp_path, 3000, math.inf)[0].level == "error"


def test_another_owner_of_the_import_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"unirl": ["Lightning_UniRL", "unirl", "lightning-unirl"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    (finding,) = check_import_name()
    assert finding.level == "warning"
    assert "'unirl' also installs a package unirl" in finding.text
    assert finding.advice.startswith("pip uninstall unirl")
