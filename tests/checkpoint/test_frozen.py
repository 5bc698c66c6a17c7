"""Checkpoints without the frozen parameters: what they hold, and which base models they are resumed on."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from interrupted_runs import fit, make_model

from unirl.backbones.frozen import DIGEST
from unirl.backbones.showo import Showo
from unirl.errors import UserError


def resume(base: Path, folder: Path, exclude: bool, ckpt_path: Path | None = None) -> dict[str, torch.Tensor]:
    """A run of one more step. Its model's parameters and buffers."""
    model = make_model("showo", base, "sft", folder)
    model.exclude_frozen_parameters = exclude
    fit(model, ckpt_path=ckpt_path, steps_per_epoch=1, max_epochs=2 if ckpt_path else 1)
    return dict(model.backbone.state_dict())


def test_a_checkpoint_without_frozen_parameters(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """It is resumed on the same base model only; a checkpoint with all parameters is resumed on any."""
    every, without = tmp_path / "all" / "checkpoints" / "0.ckpt", tmp_path / "without" / "checkpoints" / "0.ckpt"
    resume(shapes_checkpoint, tmp_path / "all", exclude=False)
    resume(shapes_checkpoint, tmp_path / "without", exclude=True)
    whole, part = (torch.load(path, weights_only=True) for path in (every, without))
    left_out = {*whole["state_dict"]} - {*part["state_dict"]}
    base = Showo.from_pretrained(str(shapes_checkpoint))
    assert left_out == {f"backbone.{name}" for name, p in base.named_parameters() if not p.requires_grad}
    assert DIGEST in part
    assert DIGEST not in whole

    expected = resume(shapes_checkpoint, tmp_path / "resumed all", exclude=False, ckpt_path=every)
    for ckpt_path in (every, without):
        resumed = resume(shapes_checkpoint, tmp_path / f"resumed {ckpt_path.parts[-3]}", True, ckpt_path)
        assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    with pytest.raises(UserError, match=r"set model\.exclude_frozen_parameters: true for this run, too"):
        resume(shapes_checkpoint, tmp_path / "refused", exclude=False, ckpt_path=without)

    with torch.no_grad():
        next(p for p in base.parameters() if not p.requires_grad).flatten()[0].add_(1e-6)
    base.save_pretrained(tmp_path / "other base")
    with pytest.raises(UserError, match="those of the base model are not the ones it was trained with"):
        resume(tmp_path / "other base", tmp_path / "refused", exclude=True, ckpt_path=without)
