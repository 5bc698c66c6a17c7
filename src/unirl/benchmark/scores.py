"""Scores of a benchmark with standard errors, and how they are saved and printed."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from unirl.benchmark.folder import ImageFile
from unirl.errors import UserError
from unirl.judges import Judge, Verdict
from unirl.output import write_atomically
from unirl.report.page import percent

RESULTS, TABLE = "results.json", "results.md"
OVERALL = "overall"
MIN_IMAGES = 8
"""Images of a category from which on verdicts that are all the same are no chance."""


@dataclass(frozen=True)
class BenchmarkResults:
    """The results of a benchmark.

    Args:
        benchmark: Its name.
        scores: In [0, 1], by name; "overall" is the score of the benchmark.
        standard_errors: Of the scores, over prompts, by the jackknife. None for a score that rests on one prompt.
        counts: Prompts and images by category.
        settings: Everything that decides the scores.
        images: File, prompt, category, verdict, reason and graded scores of each image.
        understanding: Accuracies of answers about given images; empty where the benchmark has none.
        warnings: What makes the scores doubtful, in sentences.
        without_prompt: The scores without each single prompt, by which two models are compared.
    """

    benchmark: str
    scores: dict[str, float]
    standard_errors: dict[str, float | None]
    counts: dict[str, dict[str, int]]
    settings: dict[str, Any]
    images: list[dict[str, Any]] = field(default_factory=list, repr=False)
    understanding: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    without_prompt: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    @property
    def categories(self) -> dict[str, str]:
        """The category of each prompt."""
        return {image["prompt"]: image["category"] for image in self.images}

    @property
    def score(self) -> float | None:
        """The score of the benchmark; None where it has no images."""
        return self.scores.get(OVERALL)

    def save(self, folder: str | Path) -> None:
        """Write `results.json` and `results.md`.

        Args:
            folder: Where to.
        """
        write_atomically(Path(folder) / RESULTS, (json.dumps(asdict(self), indent=1) + "\n").encode())
        write_atomically(Path(folder) / TABLE, self.markdown().encode())

    @classmethod
    def load(cls, path: str | Path) -> "BenchmarkResults":
        """Read `results.json`.

        Args:
            path: The file, or its folder.

        Raises:
            UserError: there is none, or it is no results of a benchmark.
        """
        file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
        try:
            results = cls(**json.loads(file.read_text(encoding="utf-8")))
            results._check()
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; give a folder of `unirl evaluate`") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"{file} is no results.json of `unirl evaluate`, or damaged; the command that made it writes it again"
            ) from None
        return results

    def _check(self) -> None:
        """Raise an error of any type where what was read has another form."""
        for scores in (self.scores, *self.without_prompt.values()):
            [math.isnan(value) for value in scores.values()]
        asked = self.understanding.get("answers", ())
        read: list[object] = [
            self.standard_errors.keys(),
            self.counts.keys(),
            self.settings.keys(),
            list(self.warnings),
        ]
        read += [(one["prompt"], one["category"]) for one in self.images]
        read += [(one["category"], one["question"], bool(one["correct"])) for one in asked]
        if self.understanding:
            math.isnan(self.understanding["accuracy"][OVERALL])
            read += [self.understanding["standard_error"], self.understanding["questions"]]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, prompts, images and score in percent of each line of the table, the score of the benchmark last."""
        names = [*(name for name in self.scores if name != OVERALL), *([OVERALL] if OVERALL in self.scores else [])]
        rows = []
        for name in names:
            count = self.counts.get(name, {}) if name != OVERALL else _total(self.counts)
            error = self.standard_errors.get(name)
            spread = "" if error is None else f" ± {100 * error:.1f}"
            rows.append(
                (
                    name,
                    str(count.get("prompts", "")),
                    str(count.get("images", "")),
                    f"{100 * self.scores[name]:.1f}{spread}",
                )
            )
        return rows

    def understanding_rows(self) -> list[tuple[str, str, str]]:
        """Category, questions and accuracy in percent of each line of the table of understanding."""
        questions, errors = (self.understanding.get(name, {}) for name in ("questions", "standard_error"))
        return [
            (name, str(questions.get(name, sum(questions.values()))), percent(value, errors[name]))
            for name, value in self.understanding.get("accuracy", {}).items()
        ]

    def table(self) -> Table:
        """The scores for a terminal."""
        table = Table(box=SIMPLE_HEAD, title=None, caption="Percent, with standard errors over prompts")
        table.add_column("task")
        for name in ("prompts", "images", "score"):
            table.add_column(name, justify="right")
        for row in self.rows():
            table.add_row(*map(escape, row), style="bold" if row[0] == OVERALL else None)
        return table

    def markdown(self) -> str:
        """The scores as a page in Markdown."""
        lines = [f"# {self.benchmark}"]
        if self.scores:
            lines += ["", "| task | prompts | images | score, % |", "|---|---|---|---|"]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in self.rows()]
        if self.understanding:
            lines += ["", "| understanding | questions | accuracy, % |", "|---|---|---|"]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in self.understanding_rows()]
            yes_no = self.understanding.get("yes_no", {})
            lines += [""] if yes_no else []
            lines += [f"- yes/no questions, {name}: {100 * value:.1f} %" for name, value in yes_no.items()]
        lines += ["", *(f"- **{warning}**" for warning in self.warnings)] if self.warnings else []
        lines += ["", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | `{json.dumps(value)}` |" for name, value in self.settings.items()]
        return "\n".join(lines) + "\n"


def score(
    judge: Judge, images: Sequence[ImageFile], verdicts: Sequence[Verdict]
) -> tuple[dict[str, float], dict[str, float | None], dict[str, dict[str, float]]]:
    """Scores, their standard errors, and the scores without each single prompt.

    The jackknife over prompts takes into account that images of a prompt resemble each other, and holds for any
    aggregation. For means over prompts with equally many images it is the standard error of the mean.

    Args:
        judge: Aggregates verdicts.
        images: All images, prompt by prompt.
        verdicts: One for each image.

    Returns:
        Scores by name; their standard errors, None where a score rests on one prompt of a category; and by prompt the
        scores without it.

    Source: Efron and Stein 1981, "The jackknife estimate of variance".
    """
    examples = [image.example for image in images]
    scores = judge.summarize(examples, verdicts)
    without: dict[str, dict[str, float]] = {}
    for prompt in dict.fromkeys(example.prompt for example in examples):
        kept = [i for i, example in enumerate(examples) if example.prompt != prompt]
        without[prompt] = judge.summarize([examples[i] for i in kept], [verdicts[i] for i in kept]) if kept else {}
    categories = {example.prompt: example.category for example in examples}
    errors = {
        name: jackknife_error(value, {p: one.get(name) for p, one in without.items()}, categories)
        for name, value in scores.items()
    }
    return scores, errors, without


def jackknife_error(value: float, without: Mapping[str, float | None], categories: Mapping[str, str]) -> float | None:
    """The standard error of a score from its values without each prompt; categories are strata of fixed sizes.

    Args:
        value: The score of all prompts.
        without: The score without each prompt; None where nothing would be left of it.
        categories: The category of each prompt.

    Returns:
        None where a category that the score rests on has a single prompt.

    Example:
        >>> scores = [0.0, 1.0, 1.0, 0.0]  # of four prompts; their standard error is sqrt(1 / 3 / 4)
        >>> without = {str(i): (2 - one) / 3 for i, one in enumerate(scores)}
        >>> round(jackknife_error(0.5, without, dict.fromkeys(without, "colors")), 4)
        0.2887
    """
    strata: dict[str, list[float | None]] = {}
    for prompt, one in without.items():
        strata.setdefault(categories[prompt], []).append(one)
    variance = 0.0
    for values in strata.values():
        known = [one for one in values if one is not None]
        if len(known) == len(values) > 1:
            mean = math.fsum(known) / len(known)
            variance += (len(known) - 1) / len(known) * math.fsum((one - mean) ** 2 for one in known)
        elif known != [value]:
            return None
    return math.sqrt(variance)


def count_by_category(images: Sequence[ImageFile]) -> dict[str, dict[str, int]]:
    """Prompts and images of each category.

    Args:
        images: All images.
    """
    prompts = {image.example.prompt: image.example.category for image in images}
    by_prompt, by_image = Counter(prompts.values()), Counter(image.example.category for image in images)
    return {name: {"prompts": by_prompt[name], "images": by_image[name]} for name in by_image}


def doubts(images: Sequence[ImageFile], verdicts: Sequence[Verdict], num_prompts: int) -> list[str]:
    """Sentences about what makes scores doubtful: missing prompts, verdicts that are all the same in a category.

    Args:
        images: All images.
        verdicts: One for each.
        num_prompts: Of the whole benchmark.
    """
    per_prompt = Counter(image.example.prompt for image in images)
    missing = num_prompts - len(per_prompt)
    sentences = [f"{missing} of the benchmark's {num_prompts} prompts have no images"] if images and missing else []
    if len(set(per_prompt.values())) > 1:
        sentences.append(f"prompts have {min(per_prompt.values())} to {max(per_prompt.values())} images")
    return sentences + _equal_verdicts(images, verdicts)


def _equal_verdicts(images: Sequence[ImageFile], verdicts: Sequence[Verdict]) -> list[str]:
    by_category: dict[str, set[bool]] = {}
    for image, verdict in zip(images, verdicts, strict=True):
        by_category.setdefault(image.example.category, set()).add(verdict.correct)
    counts = count_by_category(images)
    if len(set().union(*by_category.values())) == 1 and len(images) >= MIN_IMAGES:
        return [_doubt(f"all {len(images)} verdicts", verdicts[0].correct)]
    return [
        _doubt(f"all {counts[name]['images']} verdicts of {name}", True in values)
        for name, values in by_category.items()
        if len(values) == 1 and counts[name]["images"] >= MIN_IMAGES
    ]


def _doubt(which: str, correct: bool) -> str:
    said = "correct" if correct else "wrong"
    return f"{which} are {said}: look at the images, and whether the judge can read them"


def _total(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {key: sum(count[key] for count in counts.values()) for key in ("prompts", "images")}


def _cell(text: str) -> str:
    """A text in a cell of a table in Markdown."""
    return " ".join(text.replace("|", r"\|").split())
