"""What is in a folder of an evaluation belongs to the prompts, judge, questions and images that it is reported for."""

import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from unirl import BenchmarkResults, Example, Item, UserError, compare, evaluate
from unirl.backbones import PretrainedModel
from unirl.backbones.fingerprint import fingerprint
from unirl.benchmark.records import Records
from unirl.judges import Judge, ReferenceImages
from unirl.testing import TinyBackbone

CUP, DOG = Example("a cup", objects=(Item("cup"),)), Example("a dog", objects=(Item("dog"),))


class Counting(Judge):
    """Counts what it judges."""

    def __init__(self, *examples: Example, model: Path | None = None, images: Path | None = None) -> None:
        self.examples, self.model, self.judged = examples or (CUP, DOG), model, 0
        self._images = None if images is None else ReferenceImages(str(images))

    @property
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return () if self.model is None else (PretrainedModel(str(self.model)),)

    def benchmark(self) -> Sequence[Example]:
        return self.examples

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        self.judged += len(examples)
        return pixels.mean((1, 2, 3)) > 0.5

    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], list[str]] | None:
        return None if self._images is None else self._images.understanding_set(count, seed)


class Reading(TinyBackbone):
    """Reads images of files, and counts the questions that it is asked."""

    asked = 0

    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        side = self.decode(self.sample_images(["a"], self.sampling_config.image_sampling)).shape[-1]
        return torch.stack([torch.full((3, side, side), image.getpixel((0, 0))[0] / 255) for image in images])

    def sample_answers(self, images: Any, questions: Sequence[str], *rest: Any) -> Any:
        self.asked += len(questions)
        return super().sample_answers(images, questions, *rest)


def judged(folder: Path, judge: Counting, **options: Any) -> int:
    evaluate(TinyBackbone(), judge, folder, images=2, **options)
    return judge.judged


def test_a_folder_with_images_of_other_prompts_is_refused(tmp_path: Path) -> None:
    assert judged(tmp_path, Counting()) == 4
    before = (tmp_path / "results.json").read_bytes()
    for examples in ((DOG, CUP), (Example("a cat"),), (CUP, Example("a long " * 40))):
        with pytest.raises(UserError, match=r"metadata.jsonl is of the prompt 'a .*other prompts; take another --out"):
            judged(tmp_path, Counting(*examples))
    assert (tmp_path / "results.json").read_bytes() == before
    assert judged(tmp_path, Counting(CUP, DOG, Example("a cat"))) == 2


def test_what_an_image_must_show_may_change(tmp_path: Path) -> None:
    judged(tmp_path, Counting())
    assert judged(tmp_path, Counting()) == 0
    assert judged(tmp_path, Counting(CUP, Example("a dog", objects=(Item("dog", 2),)))) == 2
    assert '"count": 2' in (tmp_path / "00001" / "metadata.jsonl").read_text()


def test_other_weights_of_a_judge_judge_again(tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"judge counting: .*nowhere"):
        judged(out, Counting(model=tmp_path / "nowhere"))
    assert not out.exists()
    for weights, count in ((b"1", 4), (b"1", 0), (b"2", 4)):
        (model / "model.safetensors").write_bytes(weights)
        assert judged(out, Counting(model=model)) == count
    assert BenchmarkResults.load(out).settings["judge_models"][str(model)] == fingerprint(str(model))


def test_questions_and_images_that_changed_are_asked_again(tmp_path: Path) -> None:
    file, backbone = tmp_path / "i.jsonl", Reading()
    line = '{"prompt": "%d", "question": "%s", "answer": "red", "image": "%d.png"}'

    def asked(*questions: str, level: int = 0) -> int:
        file.write_text("\n".join(line % (i, question, i) for i, question in enumerate(questions)))
        for i in range(len(questions)):
            Image.new("RGB", (4, 4), (level if i else 0, 0, 0)).save(tmp_path / f"{i}.png")
        backbone.asked = 0
        evaluate(backbone, Counting(images=file), tmp_path / "out", images=1, batch_size=1)
        return backbone.asked

    assert [asked("Which?", "What?"), asked("Which?", "What?")] == [2, 0]
    assert [asked("Which?", "What color?"), asked("Which?", "What color?", level=9)] == [1, 1]


class Unreadable(Counting):
    def load(self) -> None:
        raise UserError("the model cannot be read")


def test_what_cannot_work_is_said_before_an_image_is_generated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the model cannot be read"):
        judged(tmp_path, Unreadable())
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    (tmp_path / "i.jsonl").write_text('{"prompt": "a cup", "question": "q?", "answer": "x", "image": "0.png"}')
    with pytest.raises(UserError, match=r"TinyBackbone does not define `preprocess`.*reference_images"):
        judged(tmp_path, Counting(images=tmp_path / "i.jsonl"))
    with pytest.raises(UserError, match="evaluate: limit -1; it must be from 1"):
        judged(tmp_path, Counting(), limit=-1)
    assert not list(tmp_path.rglob("samples/*.png"))


@pytest.mark.parametrize("name", ["file", "file/x", "x" * 300, "~nosuchuser/x", "a\0b"])
def test_an_out_that_is_no_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=r"is a file|cannot be a folder|Not a directory"):
        judged(name, Counting())  # type: ignore[arg-type]


class Stopped(Counting):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().verdicts(examples, pixels)


def test_sigterm_stops_and_the_rest_is_done_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        judged(tmp_path, Stopped())
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(list(tmp_path.rglob("*.png"))) == 4
    assert not (tmp_path / "results.json").exists()
    assert judged(tmp_path, Counting()) == 4


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda _, data: len(data) - 1)
        with pytest.raises(UserError, match=rf"{os.strerror(errno.ENOSPC)}; what is in .* is kept, and the same"):
            judged(tmp_path, Counting())
    assert judged(tmp_path, Counting()) == 4


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    Records(tmp_path).append("a", 1)
    with (tmp_path / "0000.jsonl").open("ab") as file:
        file.write(b'\0\0\xff\n5\n["b"]\n["c", 2, 3]\n["d"')
    records = Records(tmp_path)
    records.append("e", 2)
    assert Records(tmp_path).read() == records.read() == {"a": 1, "e": 2}


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_images_of_every_mode_are_read_as_they_look(mode: str, tmp_path: Path) -> None:
    judged(tmp_path, Counting())
    file = tmp_path / "00000" / "samples" / "0000.png"
    for level, correct in ((60, False), (200, True)):
        gray = Image.new("L", (8, 8), level if mode != "1" else 255 * correct)
        image = Image.new("I;16", (8, 8), level * 256) if mode == "I;16" else gray.convert("RGB").convert(mode)
        image.save(file, "JPEG" if mode == "CMYK" else "PNG")
        assert evaluate(None, Counting(), tmp_path).images[0]["correct"] is correct


def test_a_limit_holds_for_images_of_another_program(tmp_path: Path) -> None:
    judged(tmp_path, Counting())
    assert [one["prompt"] for one in evaluate(None, Counting(), tmp_path, limit=1).images] == ["a cup"] * 2


def test_images_of_another_program_are_taken_by_their_numbers(tmp_path: Path) -> None:
    judged(tmp_path, Counting())
    samples = tmp_path / "00000" / "samples"
    for name in ("0000.png.bak", "grid.png", ".0002.png.7.part"):
        (samples / name).touch()
    for name in ("10.png", "9.PNG", "0007.jpg"):
        Image.new("RGB", (8, 8)).save(samples / name)
    (tmp_path / "00001" / "metadata.jsonl").write_text('\ufeff{"prompt": "a dog"}\r\n')
    names = [Path(one["file"]).name for one in evaluate(None, Counting(), tmp_path).images]
    assert names == ["0000.png", "0001.png", "0007.jpg", "9.PNG", "10.png", "0000.png", "0001.png"]
    for content in ("[" * 100_000, "[1]"):
        (tmp_path / "settings.json").write_text(content)
        with pytest.raises(UserError, match=r"settings.json: (not JSON|expected a JSON object)"):
            evaluate(None, Counting(), tmp_path)


DAMAGED = {
    "nested": "[" * 100_000,
    "score": '{"benchmark": "b", "scores": {"overall": null}, "standard_errors": {}, "counts": {}, "settings": {}}',
    "settings": '{"benchmark": "b", "scores": {}, "standard_errors": {}, "counts": {}, "settings": []}',
    "image": '{"benchmark": "b", "scores": {}, "standard_errors": {}, "counts": {}, "settings": {}, "images": [{}]}',
    "understanding": '{"benchmark": "b", "scores": {}, "standard_errors": {}, "counts": {}, "settings": {},'
    ' "understanding": {"answers": [{}]}}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_results_are_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(DAMAGED[name])
    with pytest.raises(UserError, match=r"results.json is no results.json of `unirl evaluate`, or damaged"):
        compare(tmp_path, tmp_path)


def test_a_comparison_says_what_differs_and_what_it_leaves_out(tmp_path: Path) -> None:
    base = {"scores": {"overall": 0.5, "x": 0.5}, "standard_errors": {}, "counts": {}}
    asked = {"accuracy": {"overall": 1.0}, "standard_error": {"overall": 0.1}, "questions": {}, "answers": []}
    settings: dict[str, Any] = {"weights_sha256": "1", "image_sampling": {"steps": 4, "guidance": 1.0}}
    other = {**settings, "image_sampling": {"steps": 4, "guidance": 2.0}}
    images = [{"prompt": "a", "category": "b"}]
    a = BenchmarkResults("b", settings=settings, images=images, understanding=asked, **base)
    b = BenchmarkResults("b", settings=other, images=images * 2, **{**base, "scores": {"overall": 0.7}})
    for name, one in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
    assert compare(tmp_path / "a", [tmp_path / "a", tmp_path / "b"]).notes == [
        "x is not compared: not all results have it",
        "understanding is not compared: not all were asked the same questions",
        "the number of images differs: 1, 1, 1, 2",
        "image_sampling.guidance differs: 1.0 and 2.0",
    ]
    assert compare(tmp_path / "a", tmp_path / "a").notes[-1] == "both have the same weights and settings"
    with pytest.raises(UserError, match="nothing to compare"):
        compare([], tmp_path / "a")
