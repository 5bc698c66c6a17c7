"""Saves that a kill cuts off, disks that take a part of what is written, and bits that flip afterwards."""

import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from mortal import forked

from unirl.checkpoint import AtomicCheckpointIO, find_corruption, latest_valid, writing
from unirl.checkpoint.integrity import SUMS, sum_of, write_sums
from unirl.checkpoint.sharded import META
from unirl.errors import UserError

OLD = {"state_dict": {"w": torch.arange(999.0)}, "global_step": 3}
NEW = {"state_dict": {"w": torch.arange(999.0) + 1}, "global_step": 4}
SIZE = 5_000
OFFSETS = [0, *random.Random(0).sample(range(SIZE), 6), SIZE]


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def saved_till(offset: int, path: Path) -> None:
    """Saves, and is killed when so many bytes are written, or all of them."""
    left, write = offset, writing._Watched.write

    def mortal(watched: writing._Watched, data: Any) -> int:
        nonlocal left
        written = write(watched, memoryview(data)[:left])
        left -= written
        if not left:
            die()
        return written

    writing._Watched.write = mortal  # type: ignore[method-assign]
    os.replace = die  # type: ignore[assignment]
    AtomicCheckpointIO().save_checkpoint(NEW, path)


def loaded(path: Path) -> list[float]:
    weights: list[float] = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"].tolist()
    return weights


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_save_that_a_kill_cuts_off_leaves_the_checkpoint_before_it(offset: int, tmp_path: Path) -> None:
    last, part = tmp_path / "last.ckpt", tmp_path / "last.ckpt.part"
    AtomicCheckpointIO().save_checkpoint(OLD, last)
    assert 4_000 < last.stat().st_size < 2 * SIZE
    assert forked(lambda: saved_till(offset, last), tmp_path / "log") == -signal.SIGKILL
    assert part.stat().st_size == offset
    found = latest_valid([tmp_path])
    assert found.path == last
    assert found.skipped == [f"{part}: half-written, the run was killed meanwhile"]
    assert loaded(last) == OLD["state_dict"]["w"].tolist()
    AtomicCheckpointIO().save_checkpoint(NEW, last)
    assert not part.exists()
    assert loaded(last) == NEW["state_dict"]["w"].tolist()


def test_a_save_that_is_killed_before_its_renaming_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(OLD, last)
    assert forked(lambda: saved_till(1_000_000, last), tmp_path / "log") == -signal.SIGKILL
    assert (tmp_path / "last.ckpt.part").stat().st_size == last.stat().st_size
    assert loaded(last) == OLD["state_dict"]["w"].tolist()


class Slow(BytesIO):
    """Takes 1000 bytes at once, as a disk that is almost full; Linux takes 2 GB."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:1000])


def test_what_the_system_writes_in_parts_is_written_whole() -> None:
    file = Slow()
    writing._save(NEW, file)
    assert torch.equal(torch.load(BytesIO(file.getvalue()))["state_dict"]["w"], NEW["state_dict"]["w"])


@pytest.mark.parametrize("sealed", [True, False])
def test_a_flipped_bit_anywhere_is_told_or_does_no_harm(sealed: bool, tmp_path: Path) -> None:
    """Without a seal, as others write them, it may do harm where zip archives have no checksum, but is no crash."""
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    if sealed:
        AtomicCheckpointIO().save_checkpoint(OLD, path)
    else:
        torch.save(OLD, path)
    whole, refused = path.read_bytes(), 0
    assert find_corruption(path) is None
    for _ in range(300):
        data, position = bytearray(whole), rng.randrange(len(whole))
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            found = AtomicCheckpointIO().load_checkpoint(path)
        except UserError:
            refused += 1
            continue
        assert not sealed or torch.equal(found["state_dict"]["w"], OLD["state_dict"]["w"]), position
        assert not sealed or found["global_step"] == 3, position
    assert refused > (290 if sealed else 150)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A sharded checkpoint of one process, as `fit` leaves it."""
    folder = tmp_path / "step=1.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.save({"state_dict": {"w": torch.randn(300)}}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"global_step": 1}, folder / META)
    write_sums(folder, {path.name: sum_of(path) for path in folder.iterdir()})
    return folder


def test_a_flipped_bit_of_a_sharded_checkpoint_is_told(shards: Path) -> None:
    assert find_corruption(shards) is None
    rng = random.Random(0)
    for path in sorted(shards.iterdir()):
        whole = path.read_bytes()
        for _ in range(50):
            data, position = bytearray(whole), rng.randrange(len(whole))
            data[position] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            assert find_corruption(shards) is not None, (path.name, position)
        path.write_bytes(whole)
    assert find_corruption(shards) is None


def test_a_shard_that_is_gone_is_named(shards: Path) -> None:
    (shard,) = shards.glob("*.distcp")
    shard.unlink()
    assert find_corruption(shards) == f"{shard.name} is missing"


def test_checksums_are_what_the_systems_own_tool_writes(shards: Path) -> None:
    if (tool := shutil.which("sha256sum")) is None:
        pytest.skip("no sha256sum here")
    assert subprocess.run([tool, "-c", "--strict", "--quiet", SUMS], cwd=shards, check=False).returncode == 0
