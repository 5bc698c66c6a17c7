"""The page of an evaluation, as a browser shows it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unirl.benchmark import BenchmarkResults, benchmark_report, write_report

MARKUP = (
    """</script></style><b id="bold">bold</b><script>window.ran = 1</script>"><img src=x onerror="window.ran = 1">"""
)
TEXTS = (MARKUP, "{{ 7 * 7 }} {% raw %}", "caf\u00e9 \U0001f600 \u202e \ud800", "a' onload='window.ran = 1")
CATEGORIES = ("colors", MARKUP)


def results_of(folder: Path) -> BenchmarkResults:
    """Of 12 images, a third of them right; two cannot be shown."""
    images = [
        {
            "file": f"{i:05d}/samples/0000.png",
            "prompt": f"{TEXTS[i % 4]} {i}",
            "category": CATEGORIES[i % 2],
            "index": 0,
            "correct": i % 3 == 0,
            "reason": "" if i % 3 == 0 else f"expected {TEXTS[(i + 1) % 4]}",
            "scores": {f"atoms {TEXTS[i % 4]}": 0.25},
        }
        for i in range(12)
    ]
    for i, one in enumerate(images[:-2]):
        path = folder / str(one["file"])
        path.parent.mkdir(parents=True)
        Image.new("RGB", (600 if i else 64, 400), (20 * i, 90, 200)).save(path)
    images[-1]["file"] = "../elsewhere.png"
    Image.new("RGB", (8, 8)).save(folder.parent / "elsewhere.png")
    answers = [
        {"question": f"how many ? {TEXTS[i]}", "category": CATEGORIES[0], "expected": "two", "answer": TEXTS[i]}
        for i in range(4)
    ]
    shares = {"colors": 0.5, "overall": 0.5}
    understanding: dict[str, Any] = {"accuracy": shares, "standard_error": shares, "questions": {"colors": 4}}
    understanding |= {"yes_no": {"f1": 0.5}, "answers": [{**one, "correct": i < 1} for i, one in enumerate(answers)]}
    settings = {"checkpoint": MARKUP, "seed": 3, "image_sampling": {"steps": 16}, "versions": {"torch": "2.9"}}
    scores = {"colors": 0.25, MARKUP: 0.5, "overall": 0.375}
    errors = {"colors": 0.1, MARKUP: None, "overall": 0.05}
    counts = {name: {"prompts": 6, "images": 6} for name in CATEGORIES}
    return BenchmarkResults(MARKUP, scores, errors, counts, settings, images, understanding, [f"look at {MARKUP}"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    results_of(folder).save(folder)
    return write_report(folder)


def test_a_page_shows_what_was_measured_and_asks_for_nothing(page: Path, browser: Any) -> None:
    browser.open(page)
    assert browser.requests == [page.as_uri()]
    assert not browser.problems
    text = browser.run("document.body.innerText")
    for words in ("37.5 ± 5.0", "expected {{ 7 * 7 }} {% raw %}", "image_sampling.steps", "2.9", "how many ?", "f1"):
        assert words.lower() in text.lower(), words
    assert browser.run("[...document.images].filter(one => one.naturalWidth).length") == 10
    assert browser.run("Math.max(...[...document.images].map(one => one.naturalWidth))") == 256
    assert text.count("the image cannot be read") == 2
    assert page.stat().st_size < 200_000, "plotting is for pages with curves"


def test_words_are_neither_markup_nor_script(page: Path, browser: Any) -> None:
    browser.open(page)
    assert browser.run("[window.ran, document.getElementById('bold')]") == [None, None]
    assert browser.run("[...document.images].every(one => one.src.startsWith('data:'))")
    assert browser.run("document.title") == f"Benchmark {MARKUP}"
    first = "[...document.querySelectorAll('.prompt')].map(one => one.textContent)"
    assert browser.run(first)[:2] == [f"{MARKUP} 0", f"{TEXTS[1]} 1"]


def test_filters_narrow_images_and_questions(page: Path, browser: Any) -> None:
    browser.open(page)
    assert browser.visible("images") == 12
    assert browser.choose("images", "verdict", "wrong") == 8
    assert browser.choose("images", "category", MARKUP) == 4
    assert browser.run("document.querySelector('output').value") == "4 of 12 images"
    assert browser.choose("images", "verdict", "") == 6
    assert browser.visible("answers") == 4
    assert browser.choose("answers", "verdict", "right") == 1


def test_a_phone_needs_no_sideways_scrolling(page: Path, browser: Any) -> None:
    browser.open(page, width=390)
    assert browser.run("document.documentElement.scrollWidth") == 390


def test_questions_are_shown_with_their_images(tmp_path: Path, browser: Any) -> None:
    """Also of an evaluation that generated none: images of the user's, of the benchmark's, broken ones."""
    folder = tmp_path / "evaluation"
    for path in (tmp_path / "photo.jpg", folder / "questions" / "0a.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (600, 400), (20, 90, 200)).save(path)
    (tmp_path / "broken.png").write_text(MARKUP)
    about = [str(tmp_path / "photo.jpg")] * 2 + ["questions/0a.png", str(tmp_path / "broken.png"), "../photo.jpg"]
    answers = [
        {"image": image, "question": f"{i} {MARKUP}", "category": f"c{i % 2}", "expected": "two", "answer": "2"}
        for i, image in enumerate(about)
    ]
    shares = {"c0": 0.5, "c1": 0.0, "overall": 0.25}
    understanding = {"accuracy": shares, "standard_error": {**shares, "overall": None}, "questions": {"c0": 3, "c1": 2}}
    understanding["answers"] = [{**one, "correct": i % 2 == 0} for i, one in enumerate(answers)]  # type: ignore
    BenchmarkResults("vqa", {}, {}, {}, {"seed": 0}, [], understanding).save(folder)
    browser.open(write_report(folder))
    assert browser.run("[...document.images].map(one => one.naturalWidth)") == [192, 192]
    text = browser.run("document.body.innerText")
    for words in ("expected: two", "answer: “2”", "over questions", "25.0\n", "photo.jpg", "c0"):
        assert (words in text) == (words != "photo.jpg"), words
    assert "Scores" not in text
    assert text.count("the image cannot be read") == 2
    assert not browser.problems
    assert browser.choose("answers", "verdict", "wrong") == 2
    groups = "[...document.querySelectorAll('[data-group=answers]')].map(one => one.hidden)"
    assert browser.run(groups) == [False, True, False, True]


def test_long_texts_stay_in_their_cards(tmp_path: Path, browser: Any) -> None:
    """A prompt of any length, a reason of many lines, a category that is one long word, on a phone."""
    image = {"file": "none.png", "prompt": "a long prompt " * 300, "category": "x" * 200, "index": 0, "correct": False}
    image |= {"reason": "expected a cup\nfound none\n" * 40, "scores": {"alignment": 1 / 3}}
    counts = {"x" * 200: {"prompts": 1, "images": 1}}
    BenchmarkResults("b", {"x" * 200: 0.0, "overall": float("nan")}, {}, counts, {}, [image]).save(tmp_path)
    browser.open(write_report(tmp_path), width=400)
    assert browser.run("document.documentElement.scrollWidth") == 400
    assert browser.run("Math.max(...[...document.querySelectorAll('figcaption p')].map(one => one.offsetHeight))") < 200
    assert browser.run("document.querySelector('table').offsetWidth") <= 400
    assert "expected a cup\nfound none" in browser.run("document.querySelector('figcaption').innerText")
    assert "alignment 0.333" in browser.run("document.body.innerText")


def test_a_long_evaluation_shows_a_mix(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_report, "MAX_IMAGES", 4)
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    shown = [part.split('data-verdict="')[1].split('"')[0] for part in html.split('data-item="images"')[1:]]
    assert sorted(shown) == ["right", "right", "wrong", "wrong"]
    assert "8 more images are not shown" in html
