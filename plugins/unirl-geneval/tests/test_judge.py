"""GenEval from images to verdicts, and its summary."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from unirl import Example, Item, UserError
from unirl.benchmark import metadata_of
from unirl.judges import Judge, Verdict, best_by_class
from unirl.testing import JudgeConformance
from unirl_geneval import judge as judges
from unirl_geneval.colors import ColorClassifier
from unirl_geneval.detector import DetectedObject, Detector
from unirl_geneval.judge import GenEvalJudge
from unirl_geneval.metadata import benchmark_examples
from unirl_geneval.pretrained import BACKENDS


def example(metadata: Mapping[str, Any]) -> Example:
    def items(name: str) -> tuple[Item, ...]:
        return tuple(
            Item(one["class"], one["count"], one.get("color"), tuple(one["position"]) if "position" in one else None)
            for one in metadata.get(name, ())
        )

    return Example(metadata["prompt"], category=metadata["tag"], objects=items("include"), exclude=items("exclude"))


def test_from_an_image_to_the_verdict_it_is_geneval(
    reference: Path, load_image: Callable[[Path], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """48 rows: verdict, reason, kept objects, and the colors in the order in which they are asked for."""
    scale = json.loads((reference / "detector/golden.json").read_text())["test_scale"]
    judge = GenEvalJudge(str(reference / "detector"), str(reference / "colors"))
    judge.loaded = (Detector(str(reference / "detector"), scale=scale), ColorClassifier(str(reference / "colors")))
    asked: list[list[Any]] = []
    classify = ColorClassifier.colors

    def record(self: ColorClassifier, image: Tensor, objects: list[DetectedObject]) -> list[str]:
        found = classify(self, image, objects)
        asked.append([objects[0].name, found])
        return found

    monkeypatch.setattr(ColorClassifier, "colors", record)
    detect, detected = judge.detect, []
    monkeypatch.setattr(judge, "detect", lambda *given: detected.append(detect(*given)) or detected[-1])
    rows = json.loads((reference / "end_to_end.json").read_text())
    assert len(rows) == 48
    for row in rows:
        asked.clear()
        image, one = load_image(reference / row["picture"]), example(row["metadata"])
        (found,) = judge.explain([one], image[None] / 255)
        assert (found.correct, found.reason, asked) == (row["correct"], row["reason"], row["colors"])
        kept = best_by_class(detected[-1][0], judges.threshold(one))
        assert kept.keys() == row["details"].keys()
        for name, boxes in row["details"].items():
            ours = [[*kept_one.box, kept_one.confidence] for kept_one in kept[name]]
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(boxes), rtol=0, atol=1e-3)


def test_the_summary_is_genevals(reference: Path) -> None:
    golden = json.loads((reference / "summary/summary.json").read_text())
    for name, file in (("all", "results.jsonl"), ("partial", "results_partial.jsonl")):
        rows = [json.loads(line) for line in (reference / "summary" / file).read_text().splitlines()]
        examples = [Example(row["prompt"], category=row["tag"]) for row in rows]
        found = GenEvalJudge().summarize(examples, [Verdict(row["correct"]) for row in rows])
        expected = {tag: task["score"] for tag, task in golden[name]["tasks"].items()}
        assert found == pytest.approx(expected | {"overall": golden[name]["overall"]}, abs=1e-12)
        assert [*found] == [*expected, "overall"]


def stub(objects: list[list[DetectedObject]], colors: str = "red") -> Any:
    """Models that see what is given, whatever the image."""

    class Found:
        def detect(self, images: Tensor, min_score: float) -> list[list[DetectedObject]]:
            return [[one for one in objects.pop(0) if one.confidence >= min_score] for _ in images]

        def colors(self, image: Tensor, group: list[DetectedObject]) -> list[str]:
            return [colors] * len(group)

    return Found(), Found()


def found(name: str, confidence: float, x: float = 0.0) -> DetectedObject:
    return DetectedObject(name, (x, 0.0, x + 10, 10.0), confidence)


CUP = Example("a photo of a red cup", category="colors", objects=(Item("cup", color="red"),))
DOGS = Example("two dogs", category="counting", objects=(Item("dog", 2),), exclude=(Item("dog", 3),))
PLACE = Example("a cup left of a dog", category="position", objects=(Item("dog"), Item("cup", 1, None, ("left of", 0))))


def test_objects_colors_numbers_and_places_decide() -> None:
    judge = GenEvalJudge(batch_size=2)
    seen = [
        [found("cup", 0.4)],
        [found("dog", 0.95), found("dog", 0.92, 20), found("dog", 0.8, 40)],
        [found("dog", 0.5), found("cup", 0.5, 40)],
        [found("dog", 0.95)],
    ]
    judge.loaded = stub(seen)
    verdicts = judge.explain([CUP, DOGS, PLACE, DOGS], torch.zeros(4, 3, 8, 8))
    assert [one.correct for one in verdicts] == [True, True, False, False]
    assert verdicts[2].reason == "expected cup left of target, found right of target"
    assert verdicts[3].reason == "expected dog>=2, found 1"
    judge.loaded = stub([[found("cup", 0.4)]], "blue")
    (one,) = judge.explain([CUP], torch.zeros(1, 3, 8, 8))
    assert one.reason == "expected red cup>=1, found 0 red; and 1 blue"


def test_what_it_cannot_judge_is_refused() -> None:
    judge, pixels = GenEvalJudge(), torch.zeros(1, 3, 8, 8)
    judge.loaded = stub([])
    for one, image, message in (
        (Example("a photo"), pixels, "'a photo': it has no objects"),
        (Example("a sofa", objects=(Item("sofa"),)), pixels, "'a sofa': the class 'sofa' is none of GenEval's 80"),
        (Example("a", objects=(Item("cup", color="teal"),)), pixels, "the color 'teal'"),
        (CUP, torch.zeros(1, 1, 8, 8), r"RGB images \(B, 3, H, W\), got \(1, 1, 8, 8\)"),
        (CUP, torch.zeros(1, 3, 0, 8), "got .1, 3, 0, 8."),
        (CUP, torch.zeros(2, 3, 8, 8), "got 2 for 1"),
    ):
        with pytest.raises(UserError, match=message):
            judge.verdicts([one], image)
    assert judge.verdicts([], torch.zeros(0, 3, 8, 8)).shape == (0,)
    with pytest.raises(UserError, match="batch_size 0"):
        GenEvalJudge(batch_size=0)


def test_models_are_loaded_at_first_use_named_and_not_copied(detector_folder: Path, clip_folder: Path) -> None:
    judge = GenEvalJudge("no/detector", "no/clip", detector_revision="v1")
    assert [(one.name, one.model_type, one.revision) for one in judge.pretrained_models] == [
        ("no/detector", "mask2former", "v1"),
        ("no/clip", "clip", None),
    ]
    judge = GenEvalJudge(str(detector_folder), str(clip_folder))
    assert judge.verdicts([CUP], torch.rand(1, 3, 40, 40)).tolist() == [False]
    assert "loaded" in vars(judge)
    assert "loaded" not in vars(copy.deepcopy(judge))


def test_verdicts_do_not_depend_on_the_precision_around_them(
    detector_folder: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = GenEvalJudge(str(detector_folder), str(clip_folder))
    detector = Detector(str(detector_folder), scale=(64, 64))
    judge.loaded = (detector, ColorClassifier(str(clip_folder)))
    outputs, seen = detector.outputs, []

    def record(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((outputs(images), [backend.fp32_precision for backend in BACKENDS]))
        return seen[-1][0]

    monkeypatch.setattr(detector, "outputs", record)
    pixels = torch.randint(0, 256, (1, 3, 40, 40), generator=torch.Generator().manual_seed(0)) / 255
    judge.verdicts([CUP], pixels)
    torch.set_float32_matmul_precision("medium")
    try:
        before = [backend.fp32_precision for backend in BACKENDS]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            judge.verdicts([CUP], pixels.double())
        assert [backend.fp32_precision for backend in BACKENDS] == before
    finally:
        torch.set_float32_matmul_precision("highest")
    (plain, _), (mixed, precisions) = seen
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))
    assert precisions == ["ieee"] * len(BACKENDS)


def test_reference_images_are_asked_about_and_have_prompts(tmp_path: Path) -> None:
    """GenEval's layout has no questions; those of its tasks are made."""
    for number, one in enumerate((CUP, DOGS, PLACE, Example("other", category="mine", objects=(Item("cup"),)))):
        (tmp_path / f"{number:05d}/samples").mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number:05d}/samples/0000.png")
        (tmp_path / f"{number:05d}/metadata.jsonl").write_text(json.dumps(metadata_of(one)))
    judge = GenEvalJudge(reference_images=str(tmp_path))
    assert judge.references([DOGS, Example("no image")]) == [str(tmp_path / "00001/samples/0000.png"), None]
    asked = judge.understanding_set(9)
    assert asked is not None
    answers = {one.category: one.answer for one in asked[0]}
    assert answers == {"colors": "red", "counting": "two dogs", "position": "The cup is left of the dog"}
    by_category = {one.category: one for one in asked[0]}
    for category, answer, accepted in (
        ("colors", "It is red.", True),
        ("colors", "red or blue", False),
        ("counting", "There are 2 dogs", True),
        ("counting", "three dogs", False),
        ("position", "to the left of the dog", True),
        ("position", "right", False),
    ):
        assert judge.accepts_answer(by_category[category], answer) is accepted, answer
    plain = GenEvalJudge()
    assert plain.references([DOGS]) is plain.understanding_set(9) is None
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        GenEvalJudge(reference_images=str(tmp_path / "absent"))


class TestGenEvalJudge(JudgeConformance):
    examples = (*benchmark_examples()[80:400:64], *benchmark_examples()[:2])

    @pytest.fixture(autouse=True)
    def _models(self, detector_folder: Path, clip_folder: Path) -> None:
        self.folders = str(detector_folder), str(clip_folder)

    def make(self) -> Judge:
        judge = GenEvalJudge(*self.folders)
        judge.loaded = (Detector(self.folders[0], scale=(64, 64)), ColorClassifier(self.folders[1]))
        return judge
