"""The page of an evaluation: scores, images with verdicts and reasons, answers, settings."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from unirl.benchmark.scores import OVERALL, BenchmarkResults
from unirl.report import page
from unirl.report.page import flat, percent
from unirl.report.thumbnails import MAX_SIDE, data_uri, spread, thumbnail

MAX_IMAGES, MAX_ANSWERS = 300, 600
"""Images and answers on a page."""
QUESTION_SIDE = 192
"""Largest side of an image that is asked about, in pixels."""
RIGHT, WRONG = "right", "wrong"
SECTIONS = ("scores", "images", "understanding", "settings", "versions")


def write_report(folder: str | Path) -> Path:
    """Write `report.html` of an evaluation: one file, which needs neither network nor server.

    It is made of `results.json` and of the images in the folder, and `unirl evaluate` writes it at its end.

    Args:
        folder: Of `unirl evaluate`.

    Returns:
        The file.

    Raises:
        UserError: there are no results.
        OSError: the file cannot be written.
    """
    folder = Path(folder)
    results = BenchmarkResults.load(folder)
    images, answers = results.images, list(results.understanding.get("answers", ()))
    shown_images, shown_answers = _choose(images, MAX_IMAGES), _choose(answers, MAX_ANSWERS)
    settings = dict(results.settings)
    versions = settings.pop("versions", {})
    values = {
        "scores": results.rows(),
        "images": [{**one, "source": _source(folder, one["file"])} for one in shown_images],
        "understanding": _understanding_tables(results),
        "settings": flat(settings),
        "versions": flat(versions),
    }
    html = page.render(
        "benchmark.html",
        title=f"Benchmark {results.benchmark}",
        sections={name: name.capitalize() for name in SECTIONS if values[name]},
        summary=_summary(results),
        warnings=results.warnings,
        answers=_by_image(folder, shown_answers),
        left_out={"images": len(images) - len(shown_images), "answers": len(answers) - len(shown_answers)},
        filters={"images": _filters(shown_images), "answers": _filters(shown_answers)},
        **values,
    )
    page.write(folder, html)
    return folder / page.REPORT


def _summary(results: BenchmarkResults) -> list[tuple[str, str]]:
    cells = []
    if results.score is not None:
        cells.append(("score, %", percent(results.score, results.standard_errors.get(OVERALL))))
        cells.append(("images", str(len(results.images))))
    if results.understanding:
        cells.append(("questions", str(sum(results.understanding["questions"].values()))))
        accuracy, error = (results.understanding[name].get(OVERALL) for name in ("accuracy", "standard_error"))
        cells.append(("understanding, %", percent(accuracy, error)))
    checkpoint = results.settings.get("checkpoint")
    return [*cells, *([("checkpoint", checkpoint)] if checkpoint else [])]


def _choose(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    return [rows[i] for i in spread([(row["category"], row["correct"]) for row in rows], count)]


def _filters(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {"category": list(dict.fromkeys(row["category"] for row in rows)), "verdict": [WRONG, RIGHT]}


def _by_image(folder: Path, answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers about each image together. Images of the user's are where they are, those of a benchmark below."""
    groups: dict[str | None, list[Mapping[str, Any]]] = {}
    for answer in answers:
        groups.setdefault(answer.get("image"), []).append(answer)
    return [
        {
            "image": image,
            "source": None if image is None else _source(folder, image, QUESTION_SIDE, Path(image).is_absolute()),
            "verdict": (WRONG, RIGHT)[rows[0]["correct"]] if len({row["correct"] for row in rows}) == 1 else "",
            "answers": rows,
        }
        for image, rows in groups.items()
    ]


def _source(folder: Path, file: str, side: int = MAX_SIDE, is_anywhere: bool = False) -> str | None:
    """An image of the folder; None where it is broken, missing or elsewhere."""
    path = (folder / file).resolve()
    if not is_anywhere and not path.is_relative_to(folder.resolve()):
        return None
    try:
        with Image.open(path) as image:
            return data_uri(thumbnail(ImageOps.exif_transpose(image), side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _understanding_tables(results: BenchmarkResults) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = [
        {
            "columns": ("category", "questions", "accuracy, %"),
            "note": "± one standard error over questions. Overall is the mean over categories.",
            "rows": results.understanding_rows(),
        },
        {
            "columns": ("yes/no questions", "%"),
            "note": "Precision, recall and F1 are those of “yes”. yes_share: answers that are yes; neither_share: "
            "those that are neither yes nor no, which count as wrong.",
            "rows": [(name, percent(value)) for name, value in results.understanding.get("yes_no", {}).items()],
        },
    ]
    return [table for table in tables if table["rows"]]
