"""Single-file checkpoints: written completely or not at all, and refused if they are corrupt or hold code."""

import os
import random
from pathlib import Path

import pytest
import torch

from unirl.checkpoint import AtomicCheckpointIO, find_corruption, latest_valid
from unirl.errors import UserError

CHECKPOINT = {"state_dict": {"w": torch.arange(100.0)}, "global_step": 3}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint, with an older one in the same folder."""
    for age, name in enumerate(("new.ckpt", "old.ckpt")):
        AtomicCheckpointIO().save_checkpoint(CHECKPOINT, tmp_path / name)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    return tmp_path / "new.ckpt"


def test_round_trip_leaves_no_other_files(saved: Path) -> None:
    loaded = AtomicCheckpointIO().load_checkpoint(saved)
    assert torch.equal(loaded["state_dict"]["w"], CHECKPOINT["state_dict"]["w"])
    assert sorted(path.name for path in saved.parent.iterdir()) == ["new.ckpt", "old.ckpt"]


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_and_a_valid_one_named(saved: Path, fraction: float) -> None:
    os.truncate(saved, int(saved.stat().st_size * fraction))
    with pytest.raises(UserError, match=r"new\.ckpt is refused: truncated.*--ckpt_path .*old\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(saved)


def test_a_flipped_bit_of_the_weights_is_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    start = data.index(CHECKPOINT["state_dict"]["w"].numpy().tobytes())
    data[start + random.Random(0).randrange(400)] ^= 1
    saved.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: the checksum of .* does not match"):
        AtomicCheckpointIO().load_checkpoint(saved)


def test_code_in_a_checkpoint_is_refused_and_not_run(saved: Path, tmp_path: Path) -> None:
    torch.save({**CHECKPOINT, "payload": Payload(tmp_path / "ran")}, saved)
    with pytest.raises(UserError, match=r"more than data: posix\.mkdir; no code was run"):
        AtomicCheckpointIO().load_checkpoint(saved)
    assert not (tmp_path / "ran").exists()


def test_the_newest_valid_checkpoint_is_found_and_skipped_ones_are_named(saved: Path) -> None:
    os.truncate(saved, 100)
    (saved.parent / "last.ckpt.part").write_bytes(b"half")
    search = latest_valid([saved.parent])
    assert search.path == saved.parent / "old.ckpt"
    names = [Path(line.partition(": ")[0]).name for line in search.skipped]
    assert names == ["last.ckpt.part", "new.ckpt"]


def test_a_full_disk_keeps_older_checkpoints(saved: Path) -> None:
    """`RLIMIT_FSIZE` makes a write fail in the middle, as a full disk does."""
    resource = pytest.importorskip("resource")
    before, limits, plugin = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE), AtomicCheckpointIO()
    large = {"state_dict": {"w": torch.zeros(100_000)}, "global_step": 4}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="no checkpoint was saved at step 4: File too large"):
            plugin.save_checkpoint(large, saved)
        plugin.remove_checkpoint(saved.parent / "old.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["new.ckpt", "old.ckpt"]
    plugin.save_checkpoint(large, saved)
    assert find_corruption(saved) is None
    assert not (saved.parent / "old.ckpt").exists()
