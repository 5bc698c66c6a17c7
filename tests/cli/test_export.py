"""`unirl export` speaks of its own options."""

from pathlib import Path

import pytest
import torch

from unirl.cli.main import main


def test_a_damaged_or_missing_checkpoint_names_the_newest_valid_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    valid, damaged, gone = (tmp_path / f"{name}.ckpt" for name in ("valid", "damaged", "gone"))
    torch.save({"state_dict": {}}, valid)
    damaged.write_bytes(valid.read_bytes()[:-50])
    gone.symlink_to(tmp_path / "removed.ckpt")
    (tmp_path / "config.yaml").write_text("model: {}")
    cases = {
        damaged: f"is refused: truncated, or not a checkpoint; the newest valid one in its folder: --ckpt {valid}",
        gone: f"which is gone; the newest valid one in its folder: --ckpt {valid}",
        tmp_path / "nothing.ckpt": "--ckpt: no checkpoint at",
    }
    for path, message in cases.items():
        with pytest.raises(SystemExit) as stopped:
            main(["export", "--ckpt", str(path), "--out", str(tmp_path / "out")])
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert message in error
        assert "--ckpt_path" not in error
        assert error.count("\n") == 1
