"""AtomicTrainer with one and two processes: checkpoints are verified once, and `save_last: link` works."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))  # tests are not a package

from processes import run_processes

from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer, find_corruption, latest_valid
from unirl.checkpoint.resume import check_ckpt_path
from unirl.distributed.strategies import register
from unirl.errors import UserError

VERIFIERS = ("unirl.checkpoint.trainer", "unirl.checkpoint.io", "unirl.checkpoint.resume")


class Tiny(LightningModule):
    """A linear layer, sharded under fsdp2."""

    def configure_model(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            fully_shard(self.layer, mesh=init_device_mesh("cpu", (self.trainer.world_size,)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.layer.parameters())


def fit(
    folder: Path, strategy: str = "auto", devices: int = 1, max_steps: int = 2, **resume: Any
) -> tuple[int, list[str], str | None]:
    """Train and save each step. The last step, the checkpoints that this process verified, and the error."""
    register()
    verified: list[str] = []

    def counting(path: Path) -> str | None:
        verified.append(path.name)
        return find_corruption(path)

    for module in VERIFIERS:
        sys.modules[module].find_corruption = counting  # type: ignore[attr-defined] # undone by `verifiers`
    saving = ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=1, save_last="link")
    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    atomic = AtomicTrainer(
        accelerator="cpu",
        strategy=strategy,
        devices=devices,
        max_steps=max_steps,
        callbacks=[saving],
        plugins=[AtomicCheckpointIO()],
        **options,
    )
    atomic.resume_folders = resume.get("folders")
    try:
        atomic.fit(Tiny(), DataLoader(torch.ones(8, 4)), ckpt_path=resume.get("ckpt_path"))
    except UserError as error:
        return atomic.global_step, verified, str(error)
    return atomic.global_step, verified, None


@pytest.fixture(autouse=True)
def verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in VERIFIERS:
        monkeypatch.setattr(sys.modules[module], "find_corruption", find_corruption)


def flip_bit(checkpoint: Path) -> None:
    path = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size) if checkpoint.is_dir() else checkpoint
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def resumes(folder: Path, strategy: str) -> list[tuple[int, list[str], str | None]]:
    """A run of two steps, runs that resume it by the link and by a search, and one from a corrupt checkpoint."""
    runs = [fit(folder, strategy, 2)]
    last = folder / "checkpoints" / "last.ckpt"
    runs += [fit(folder, strategy, 2, 3, ckpt_path=str(last)), fit(folder, strategy, 2, 4, folders=[last.parent])]
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        flip_bit(last.parent / "step=4.ckpt")
    torch.distributed.barrier()
    return [*runs, fit(folder, strategy, 2, 5, ckpt_path=str(last.parent / "step=4.ckpt"))]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_rank_0_verifies_a_checkpoint_once(strategy: str, tmp_path: Path) -> None:
    first, second = run_processes(resumes, tmp_path, strategy)
    checkpoints = tmp_path / "checkpoints"
    assert [steps for steps, _, _ in first] == [steps for steps, _, _ in second] == [2, 3, 4, 0]
    corrupt, newest = "step=4.ckpt", f"its folder: --ckpt_path {checkpoints / 'step=3.ckpt'}"
    assert [verified for _, verified, _ in first] == [[], ["last.ckpt"], ["step=3.ckpt"], [corrupt, "step=3.ckpt"]]
    assert [verified for _, verified, _ in second] == [[], [], [], []]
    assert first[3][2] == second[3][2]
    assert "step=4.ckpt is refused: damaged" in str(first[3][2])
    assert newest in str(first[3][2])
    links = [path for path in checkpoints.iterdir() if path.is_symlink()]
    assert {path.readlink() for path in links} == {Path(corrupt)}


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_whose_checkpoint_is_gone_is_no_checkpoint(is_folder: bool, tmp_path: Path) -> None:
    """As where a run is killed after an old checkpoint was removed and before the link was made anew."""
    newest, last = tmp_path / "step=2.ckpt", tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, newest)
    last.symlink_to("step=1.ckpt")
    assert latest_valid([tmp_path]).path == newest
    with pytest.raises(
        UserError, match=r"last\.ckpt' links to step=1\.ckpt, which is gone; .*--ckpt_path .*step=2\.ckpt"
    ):
        check_ckpt_path(str(last))
    if is_folder:
        (tmp_path / "step=1.ckpt").mkdir()
    AtomicCheckpointIO().remove_checkpoint(last)
    assert not os.path.lexists(last)


def test_a_failed_save_does_not_end_a_run_with_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link then names a checkpoint that is not there; the one before it is kept, and a resumed run finds it."""
    saved: list[Path] = []

    def write(checkpoint: Any, path: Path) -> None:
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)

    monkeypatch.setattr(sys.modules["unirl.checkpoint.io"], "write_atomically", write)
    with pytest.warns(UserWarning, match="no checkpoint was saved at step 2"):
        fit(tmp_path)
    assert latest_valid([tmp_path / "checkpoints"]).path == saved[0]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
