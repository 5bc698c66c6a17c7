"""Each check of the doctor's by itself."""

import math
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from unirl.doctor import checks
from unirl.doctor.checks import (
    check_checkpoint,
    check_disk,
    check_import_name,
    check_shares,
    check_sizes,
    check_validation,
)
from unirl.testing.table import TableBackbone


def sizes(prompts: int, group: int, devices: int, held_out: int = 100) -> str:
    data = SimpleNamespace(prompts_per_step=prompts, examples=["a"] * held_out)
    return "\n".join(f"{one.level} {one}" for one in check_sizes(SimpleNamespace(group_size=group), data, devices))


def test_prompts_must_divide_among_devices() -> None:
    assert sizes(12, 8, 4) == "ok sizes: 12 prompts x group 8 = 96 drawings a step, 24 a device"
    assert sizes(12, 8, 5).endswith("take a multiple of 5, such as 15, or other devices")
    assert sizes(4, 8, 16).startswith("error")


def test_too_few_held_out_prompts_are_told() -> None:
    assert "warning sizes: there are no held-out prompts" in sizes(4, 2, 1, num_val_prompts=0)
    data = SimpleNamespace(steps_per_epoch=5, val_batch_size=2, examples=["a"] * 3)
    trainer = {"num_devices": 2, "num_nodes": 2, "limit_train_batches": 1.0}
    (found,) = check_shares(data, SimpleNamespace(**trainer, limit_val_batches=1.0))
    assert found.level == "error"
    assert str(found).startswith("sizes: 3 held-out prompts for 4 devices")
    assert not check_shares(data, SimpleNamespace(**trainer, limit_val_batches=0))
    data.examples = ["a"] * 4
    assert not check_shares(data, SimpleNamespace(**trainer, limit_val_batches=1.0))


@pytest.mark.parametrize(
    ("interval", "every", "wrong"),
    [(50, 1, False), (51, 1, True), (51, None, False), (0.5, 1, False), (0.01, 1, True), (None, 1, False)],
)
def test_validation_falls_into_an_epoch(interval: float | int | None, every: int | None, wrong: bool) -> None:
    found = check_validation(SimpleNamespace(steps_per_epoch=50), interval, every)
    assert [one.level for one in found] == ["error"] * wrong


def test_a_folder_that_is_not_there_yet_is_looked_at_where_it_will_be(tmp_path: Path) -> None:
    (found,) = check_disk(tmp_path / "runs" / "new", one=1000, kept=2)
    assert found.level == "ok"
    assert found.text.startswith("2 checkpoints at once, 1.0 kB each")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (found,) = check_disk(tmp_path / "file" / "runs")
    assert found.level == "error"
    assert "cannot be written" in found.text


def test_checkpoints_that_do_not_fit_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2500))
    assert [check_disk(tmp_path, 1000, kept)[0].level for kept in (2, 3, math.inf)] == ["ok", "error", "warning"]
    assert check_disk(tmp_path, 3000, math.inf)[0].level == "error"


@pytest.mark.parametrize(
    ("files", "level", "text"),
    [
        ({}, "error", "config.json is missing"),
        ({"config.json": "{"}, "error", "is broken"),
        ({"config.json": "{}"}, "error", "no weights"),
        ({"config.json": "{}", "model.safetensors": "x"}, "ok", "3 B on this machine"),
        ({"config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "b"}}'}, "error", "no weights"),
    ],
)
def test_a_checkpoint_folder(tmp_path: Path, files: dict[str, str], level: str, text: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (found,) = check_checkpoint(TableBackbone(str(tmp_path)))
    assert found.level == level
    assert text in found.text


def test_a_backbone_without_a_checkpoint_has_nothing_to_look_for() -> None:
    assert check_checkpoint(TableBackbone()) == []


def test_another_owner_of_the_import_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"unirl": ["Lightning_UniRL", "unirl", "lightning-unirl"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    (found,) = check_import_name()
    assert found.level == "warning"
    assert "'unirl' also owns the import name unirl" in found.text
    assert found.advice.startswith("pip uninstall unirl")
