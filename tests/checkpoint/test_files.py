"""Checkpoints of one file: whole or not there, refused where they are broken or hold more than data."""

import os
import random
from pathlib import Path

import pytest
import torch

from unirl.checkpoint import AtomicCheckpointIO, find_corruption, latest_valid
from unirl.errors import UserError

STATE = {"state_dict": {"w": torch.arange(100.0)}, "global_step": 3}


class Payload:
    """Runs something when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint, with an older one beside it."""
    for age, name in enumerate(("new.ckpt", "old.ckpt")):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    return tmp_path / "new.ckpt"


def test_what_is_saved_comes_back_and_nothing_else_is_left(saved: Path) -> None:
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(saved)["state_dict"]["w"], STATE["state_dict"]["w"])
    assert sorted(path.name for path in saved.parent.iterdir()) == ["new.ckpt", "old.ckpt"]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_one_is_refused_and_a_whole_one_offered(saved: Path, kept: float) -> None:
    os.truncate(saved, int(saved.stat().st_size * kept))
    with pytest.raises(UserError, match=r"new\.ckpt is refused: truncated.*--ckpt_path .*old\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(saved)


def test_a_flipped_bit_of_the_weights_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    start = data.index(STATE["state_dict"]["w"].numpy().tobytes())
    position = start + random.Random(0).randrange(400)
    data[position] ^= 1
    saved.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: the checksum of .* does not fit"):
        AtomicCheckpointIO().load_checkpoint(saved)


def test_a_payload_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    torch.save({**STATE, "payload": Payload(tmp_path / "ran")}, saved)
    with pytest.raises(UserError, match=r"more than data: posix\.mkdir; nothing of it was run"):
        AtomicCheckpointIO().load_checkpoint(saved)
    assert not (tmp_path / "ran").exists()


def test_last_is_the_newest_whole_one_and_what_it_skips_is_named(saved: Path) -> None:
    os.truncate(saved, 100)
    (saved.parent / "last.ckpt.part").write_bytes(b"half")
    found = latest_valid([saved.parent])
    assert found.path == saved.parent / "old.ckpt"
    names = [Path(line.partition(": ")[0]).name for line in found.skipped]
    assert names == ["last.ckpt.part", "new.ckpt"]


def test_a_full_disk_keeps_what_was_saved_before(saved: Path) -> None:
    """`RLIMIT_FSIZE` stands in for a full disk: a write fails in the middle, as there."""
    resource = pytest.importorskip("resource")
    before, limits, files = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE), AtomicCheckpointIO()
    big = {"state_dict": {"w": torch.zeros(100_000)}, "global_step": 4}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="no checkpoint was saved at step 4: File too large"):
            files.save_checkpoint(big, saved)
        files.remove_checkpoint(saved.parent / "old.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["new.ckpt", "old.ckpt"]
    files.save_checkpoint(big, saved)
    assert find_corruption(saved) is None
    assert not (saved.parent / "old.ckpt").exists()
