"""`unirl evaluate`: images, verdicts and scores that come again, whatever happened in between."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from unirl import BenchmarkResults, Example, UserError, compare, evaluate
from unirl.backbones.showo import Showo
from unirl.benchmark import runner
from unirl.benchmark.folder import ImageFile
from unirl.benchmark.scores import doubts
from unirl.judges import Judge, Verdict
from unirl.types import ImageSampling
from unirl_shapes.judge import ShapesJudge

SAMPLING = ImageSampling(steps=4, temperature=1.0)
COUNT = {"images": 2, "limit": 6, "batch_size": 4, "num_understanding": 12, "image_sampling": SAMPLING}


@pytest.fixture(scope="module")
def backbone(shapes_checkpoint: Path) -> Showo:
    return Showo.from_pretrained(str(shapes_checkpoint))


@pytest.fixture(scope="module")
def finished(backbone: Showo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    evaluate(backbone, ShapesJudge(), folder, **COUNT)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_results_have_every_image_with_its_reason_and_every_setting(finished: Path) -> None:
    results = BenchmarkResults.load(finished)
    assert len(results.images) == 12
    assert sum(count["images"] for count in results.counts.values()) == 12
    assert all(image["correct"] or image["reason"] for image in results.images)
    wanted = {"checkpoint", "weights_sha256", "image_sampling", "seed", "precision", "resolution", "judge", "versions"}
    assert wanted <= set(results.settings)
    assert results.settings["resolution"] == ["64x64"]
    assert sum(results.understanding["questions"].values()) == 12
    assert "136 of the benchmark's 142 prompts have no images" in results.warnings
    assert "| overall | 6 | 12 |" in (finished / "results.md").read_text(encoding="utf-8")


def test_the_folder_has_genevals_layout(finished: Path) -> None:
    metadata = json.loads((finished / "00000" / "metadata.jsonl").read_text(encoding="utf-8"))
    assert set(metadata) >= {"tag", "include", "prompt"}
    assert sorted(path.name for path in (finished / "00000" / "samples").iterdir()) == ["0000.png", "0001.png"]


class Killed(Exception):
    pass


def killed_after(count: int, write: Callable[..., None]) -> Callable[..., None]:
    left = [count]

    def killing(*args: object) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        write(*args)

    return killing


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_killed_evaluation_goes_on_with_the_rest(
    backbone: Showo, finished: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_image", killed_after(count, runner.write_image))
        with pytest.raises(Killed):
            evaluate(backbone, ShapesJudge(), tmp_path, **COUNT)
    before = {path: (tmp_path / path).stat().st_mtime_ns for path in files_of(tmp_path)}
    assert len(before) == count
    verdicts = next((tmp_path / "verdicts").iterdir(), None) if (tmp_path / "verdicts").exists() else None
    if verdicts is not None:  # a line that was cut off
        with (verdicts / "0000.jsonl").open("a", encoding="utf-8") as file:
            file.write('["00000/samples')
    evaluate(backbone, ShapesJudge(), tmp_path, **COUNT)
    assert all((tmp_path / path).stat().st_mtime_ns == time for path, time in before.items()), "an image twice"
    assert files_of(tmp_path) == files_of(finished)
    for name in ("results.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_an_image_depends_on_seed_prompt_and_number_only(backbone: Showo, finished: Path, tmp_path: Path) -> None:
    evaluate(backbone, ShapesJudge(), tmp_path, **{**COUNT, "images": 1, "batch_size": 6, "num_understanding": 0})
    one, two = files_of(tmp_path), files_of(finished)
    assert one == {path: two[path] for path in one}
    other = tmp_path / "other"
    evaluate(backbone, ShapesJudge(), other, **{**COUNT, "images": 1, "num_understanding": 0}, seed=1)
    assert not set(files_of(other).values()) & set(two.values())


def test_a_folder_of_other_settings_is_refused(backbone: Showo, finished: Path) -> None:
    with pytest.raises(UserError, match=r"holds images of other settings: image_sampling .*steps.*; take another"):
        evaluate(backbone, ShapesJudge(), finished, **{**COUNT, "image_sampling": ImageSampling(steps=5)})


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    return folder


def test_images_of_another_program_are_judged(finished: Path, copied: Path) -> None:
    shutil.rmtree(copied / "verdicts")
    for name in ("settings.json", "results.json"):
        (copied / name).unlink()
    (copied / "notes").mkdir()
    results = evaluate(None, ShapesJudge(), copied)
    expected = BenchmarkResults.load(finished)
    assert results.images == expected.images
    assert results.scores == expected.scores
    assert results.settings["judge"] == "shapes"
    assert "seed" not in results.settings


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no metadata": (lambda one: (one / "metadata.jsonl").unlink(), "00001/metadata.jsonl is missing"),
    "no JSON": (lambda one: (one / "metadata.jsonl").write_text("{"), "00001/metadata.jsonl: not one JSON object"),
    "no prompt": (lambda one: (one / "metadata.jsonl").write_text("[]"), "00001/metadata.jsonl: expected a JSON obj"),
    "another prompt": (
        lambda one: (one / "metadata.jsonl").write_text('{"prompt": "a dog"}'),
        "the prompt 'a dog' is not one of the benchmark's 142",
    ),
    "the prompt of another folder": (
        lambda one: shutil.copy(one.parent / "00000" / "metadata.jsonl", one / "metadata.jsonl"),
        "00000 has the prompt .*, too; keep one of them",
    ),
    "a cut-off image": (
        lambda one: (one / "samples" / "0000.png").write_bytes((one / "samples" / "0000.png").read_bytes()[:60]),
        "00001/samples/0000.png: a broken image: .*truncated; replace it, or remove it",
    ),
    "a text": (lambda one: (one / "samples" / "0000.png").write_text("hello"), "0000.png: no image; expected a PNG"),
    "nothing": (lambda one: (one / "samples" / "0000.png").write_bytes(b""), "0000.png: an empty file; expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_in_a_folder_is_said_with_its_place(copied: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(copied / "00001")
    with pytest.raises(UserError, match=message):
        evaluate(None, ShapesJudge(), copied)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images to judge; expected GenEval's layout"):
        evaluate(None, ShapesJudge(), tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        evaluate(None, ShapesJudge(), tmp_path / "nowhere")


def test_colors_of_any_png_are_read_as_rgb(copied: Path) -> None:
    file = copied / "00000" / "samples" / "0000.png"
    with Image.open(file) as image:
        rgb = image.convert("RGB")
    expected = evaluate(None, ShapesJudge(), copied).images[0]
    for mode in ("RGBA", "P"):
        rgb.quantize(256).convert("P").save(file) if mode == "P" else rgb.convert(mode).save(file)
        assert evaluate(None, ShapesJudge(), copied).images[0]["correct"] == expected["correct"]


class Nothing(Judge):
    def verdicts(self, examples: object, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((1, 2, 3)) > 2


def test_a_judge_without_prompts_is_no_benchmark(backbone: Showo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing is no benchmark: it has neither prompts nor questions of its own"):
        evaluate(backbone, Nothing(), tmp_path)


def test_verdicts_that_are_all_the_same_are_said(tmp_path: Path) -> None:
    """Of a category, or of the whole benchmark, however small its categories are."""
    images = [
        ImageFile(Example(f"{name} {i}", category=name), 0, tmp_path)
        for name, count in {"colors": 8, "counting": 4}.items()
        for i in range(count)
    ]
    wrong, correct = Verdict(False), Verdict(True)
    assert doubts(images, [wrong] * 11 + [correct], 12) == [
        "all 8 verdicts of colors are wrong: look at the images, and whether the judge can read them"
    ]
    for verdict, said in ((wrong, "wrong"), (correct, "correct")):
        (sentence,) = doubts(images, [verdict] * 12, 12)
        assert sentence.startswith(f"all 12 verdicts are {said}: ")
    assert doubts(images, [wrong, correct] * 6, 12) == doubts(images[:7], [wrong] * 7, 7) == []


@pytest.mark.parametrize("name", ["images", "batch_size"])
def test_numbers_out_of_range_are_refused(backbone: Showo, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"evaluate: {name}"):
        evaluate(backbone, ShapesJudge(), tmp_path, **{name: 0})


def test_comparing_a_model_with_itself(finished: Path) -> None:
    comparison = compare(finished, [finished, finished])
    assert comparison.differences["overall"].first == comparison.differences["overall"].second
    assert comparison.differences["overall"].seeds == (0.0, 0.0)
    assert comparison.notes == ["both have the same weights and settings"]
