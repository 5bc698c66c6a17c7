"""An evaluation on two processes gives the images and the results of one, an error of rank 0 ends both."""

import sys
from pathlib import Path
from typing import Any

import pytest

from unirl import UserError, evaluate
from unirl.backbones.showo import Showo
from unirl.benchmark.runner import make_trainer
from unirl.types import ImageSampling
from unirl_shapes.judge import ShapesJudge

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import run_processes

OPTIONS: dict[str, Any] = {"images": 1, "limit": 7, "batch_size": 2, "num_understanding": 6}
SAMPLING = ImageSampling(steps=2)


def test_two_processes_give_the_results_of_one(shapes_checkpoint: Path, tmp_path: Path) -> None:
    def run(folder: Path, processes: int) -> float | None:
        strategy = {"strategy": "ddp"} if processes > 1 else {}
        trainer = make_trainer(accelerator="cpu", devices=processes, **strategy)
        backbone = Showo.from_pretrained(str(shapes_checkpoint))
        out = folder.parent / f"{processes}"
        return evaluate(backbone, ShapesJudge(), out, **OPTIONS, image_sampling=SAMPLING, trainer=trainer).score

    scores = [run_processes(run, tmp_path / f"log{n}", n, processes=n) for n in (1, 2)]
    assert scores[0] * 2 == scores[1]
    names = [path.relative_to(tmp_path / "1") for path in sorted((tmp_path / "1").glob("0*/samples/*.png"))]
    assert len(names) == 7
    for name in [*names, "results.json", "settings.json"]:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert len(list((tmp_path / "2" / "verdicts").rglob("*.jsonl"))) == 2


def test_other_settings_end_all_processes(shapes_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text('{"seed": 5}')

    def run(folder: Path) -> str:
        trainer = make_trainer(accelerator="cpu", devices=2, strategy="ddp")
        backbone = Showo.from_pretrained(str(shapes_checkpoint))
        with pytest.raises(UserError) as caught:
            evaluate(backbone, ShapesJudge(), tmp_path / "out", **OPTIONS, image_sampling=SAMPLING, trainer=trainer)
        return str(caught.value)

    messages = run_processes(run, tmp_path / "log")
    assert messages[0] == messages[1]
    assert "seed 5 and not 0" in messages[0]
