"""Saves that are killed, partial writes, and bits that flip afterwards."""

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

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from interrupted_runs import run_forked

from unirl.checkpoint import AtomicCheckpointIO, find_corruption, io, latest_valid
from unirl.checkpoint.integrity import CHECKSUMS, sha256_of, write_checksums
from unirl.checkpoint.sharded import META
from unirl.errors import UserError

OLD = {"state_dict": {"w": torch.arange(999.0)}, "global_step": 3}
NEW = {"state_dict": {"w": torch.arange(999.0) + 1}, "global_step": 4}
SIZE = 5_000
OFFSETS = [0, *random.Random(0).sample(range(SIZE), 6), SIZE]


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save_and_die(offset: int, path: Path) -> None:
    """Save, and be killed when `offset` bytes are written, or before the file is renamed."""
    left, original = offset, io._ChecksummedFile.write

    def write(file: io._ChecksummedFile, data: Any) -> int:
        nonlocal left
        written = original(file, memoryview(data)[:left])
        left -= written
        if not left:
            kill()
        return written

    io._ChecksummedFile.write = write  # type: ignore[method-assign]
    os.replace = kill  # type: ignore[assignment]
    AtomicCheckpointIO().save_checkpoint(NEW, path)


def load_weights(path: Path) -> list[float]:
    weights: list[float] = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["w"].tolist()
    return weights


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_killed_save_keeps_the_previous_checkpoint(offset: int, tmp_path: Path) -> None:
    last, partial = tmp_path / "last.ckpt", tmp_path / "last.ckpt.part"
    AtomicCheckpointIO().save_checkpoint(OLD, last)
    assert 4_000 < last.stat().st_size < 2 * SIZE
    assert run_forked(lambda: save_and_die(offset, last), tmp_path / "log") == -signal.SIGKILL
    assert partial.stat().st_size == offset
    search = latest_valid([tmp_path])
    assert search.path == last
    assert search.skipped == [f"{partial}: incomplete, the run was killed while it was written"]
    assert load_weights(last) == OLD["state_dict"]["w"].tolist()
    AtomicCheckpointIO().save_checkpoint(NEW, last)
    assert not partial.exists()
    assert load_weights(last) == NEW["state_dict"]["w"].tolist()


def test_a_save_that_is_killed_before_the_rename_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(OLD, last)
    assert run_forked(lambda: save_and_die(1_000_000, last), tmp_path / "log") == -signal.SIGKILL
    assert (tmp_path / "last.ckpt.part").stat().st_size == last.stat().st_size
    assert load_weights(last) == OLD["state_dict"]["w"].tolist()


class PartialWrites(BytesIO):
    """Writes at most 1000 bytes at once, as a disk that is almost full; Linux writes at most 2 GB."""

    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:1000])


def test_partial_writes_are_continued() -> None:
    file = PartialWrites()
    io._save_with_trailer(NEW, file)
    assert torch.equal(torch.load(BytesIO(file.getvalue()))["state_dict"]["w"], NEW["state_dict"]["w"])


@pytest.mark.parametrize("has_trailer", [True, False])
def test_a_flipped_bit_anywhere_is_refused_or_harmless(has_trailer: bool, tmp_path: Path) -> None:
    """Without a trailer it may do harm where zip archives have no checksum, but it never crashes."""
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    if has_trailer:
        AtomicCheckpointIO().save_checkpoint(OLD, path)
    else:
        torch.save(OLD, path)
    intact, refused = path.read_bytes(), 0
    assert find_corruption(path) is None
    for _ in range(300):
        data, position = bytearray(intact), rng.randrange(len(intact))
        data[position] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            loaded = AtomicCheckpointIO().load_checkpoint(path)
        except UserError:
            refused += 1
            continue
        assert not has_trailer or torch.equal(loaded["state_dict"]["w"], OLD["state_dict"]["w"]), position
        assert not has_trailer or loaded["global_step"] == 3, position
    assert refused > (290 if has_trailer else 150)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A sharded checkpoint of one process, as `fit` writes it."""
    folder = tmp_path / "step=1.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is only one process
        dcp.save({"state_dict": {"w": torch.randn(300)}}, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    torch.save({"global_step": 1}, folder / META)
    write_checksums(folder, {path.name: sha256_of(path) for path in folder.iterdir()})
    return folder


def test_a_flipped_bit_of_a_sharded_checkpoint_is_found(sharded: Path) -> None:
    assert find_corruption(sharded) is None
    rng = random.Random(0)
    for path in sorted(sharded.iterdir()):
        intact = path.read_bytes()
        for _ in range(50):
            data, position = bytearray(intact), rng.randrange(len(intact))
            data[position] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
            assert find_corruption(sharded) is not None, (path.name, position)
        path.write_bytes(intact)
    assert find_corruption(sharded) is None


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (shard,) = sharded.glob("*.distcp")
    shard.unlink()
    assert find_corruption(sharded) == f"{shard.name} is missing"


def test_sha256sum_reads_the_checksums(sharded: Path) -> None:
    if (tool := shutil.which("sha256sum")) is None:
        pytest.skip("no sha256sum on this machine")
    assert subprocess.run([tool, "-c", "--strict", "--quiet", CHECKSUMS], cwd=sharded, check=False).returncode == 0
