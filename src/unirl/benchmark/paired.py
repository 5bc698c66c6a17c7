"""The difference of two models on the same prompts of a benchmark, with a confidence interval."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from unirl.benchmark.scores import OVERALL, BenchmarkResults, jackknife_error
from unirl.errors import UserError

UNDERSTANDING = "understanding"
CONFIDENCE_95 = 1.96
"""Standard errors on each side of a 95 % interval."""


@dataclass(frozen=True)
class Difference:
    """A score of two models.

    Args:
        first: Of the first, in [0, 1]; the mean over its runs.
        second: Of the second.
        low: Lower end of the 95 % interval of `second - first`; None where it rests on one prompt.
        high: Upper end.
        seeds: `second - first` of each pair of runs, where there are several.
    """

    first: float
    second: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The differences of two models.

    Args:
        differences: By score, that of the benchmark last.
        notes: Settings in which the two differ, and what could not be compared.
    """

    differences: dict[str, Difference]
    notes: list[str]

    def table(self) -> Table:
        """The differences for a terminal, in percent."""
        over = ["prompts"] if set(self.differences) - {UNDERSTANDING} else []
        over += [f"{'of understanding over ' if over else ''}questions"] if UNDERSTANDING in self.differences else []
        caption = f"Percent; 95 % interval of the paired difference over {', '.join(over)}"
        table = Table(box=SIMPLE_HEAD, caption=caption)
        table.add_column("task")
        several = any(len(one.seeds) > 1 for one in self.differences.values())
        for name in ("first", "second", "difference", "interval", *(["each run"] if several else [])):
            table.add_column(name, justify="right")
        for name, one in self.differences.items():
            interval = "-" if one.low is None or one.high is None else f"{100 * one.low:+.1f} to {100 * one.high:+.1f}"
            values = (f"{100 * one.first:.1f}", f"{100 * one.second:.1f}", f"{100 * (one.second - one.first):+.1f}")
            runs = [", ".join(f"{100 * value:+.1f}" for value in one.seeds)] if several else []
            table.add_row(escape(name), *values, interval, *runs, style="bold" if name == OVERALL else None)
        return table


def compare(first: str | Path | Sequence[str | Path], second: str | Path | Sequence[str | Path]) -> Comparison:
    """Compare two models on the same prompts.

    The interval is that of the jackknife over prompts of the paired difference: it says what other prompts of the same
    kind might change, for these weights. With several runs of each, such as seeds of training, scores are their means,
    and the differences of the runs show what another seed may change.

    Args:
        first: A folder of `unirl evaluate`, or several.
        second: The other model's; as many.

    Raises:
        UserError: there are no results, or they are of other benchmarks or prompts.
    """
    paths = [[one] if isinstance(one, str | Path) else list(one) for one in (first, second)]
    if len(paths[0]) != len(paths[1]) and 1 not in map(len, paths):
        raise UserError(f"{len(paths[0])} runs against {len(paths[1])}; give equally many of both, or one of the first")
    if not all(paths):
        raise UserError("nothing to compare: give a folder of `unirl evaluate` on both sides")
    count = max(map(len, paths))
    loaded = [[BenchmarkResults.load(path) for path in side] for side in paths]
    sides = [side * count if len(side) == 1 else side for side in loaded]
    pairs = list(zip(*sides, strict=True))
    for one in (one for pair in pairs for one in pair):
        _check(pairs[0][0], one)
    names = [name for name in pairs[0][0].scores if all(name in one.scores for pair in pairs for one in pair)]
    names.sort(key=lambda name: name == OVERALL)
    differences = {name: _difference(pairs, name) for name in names} | _understanding(pairs)
    if not differences:
        raise UserError("the results have neither scores nor answers in common; nothing can be compared")
    return Comparison(differences, _notes(pairs, differences))


def _check(a: BenchmarkResults, b: BenchmarkResults) -> None:
    if a.benchmark != b.benchmark:
        raise UserError(f"results of other benchmarks: {a.benchmark} and {b.benchmark}")
    only = set(a.without_prompt) ^ set(b.without_prompt)
    if only:
        raise UserError(
            f"results of other prompts: {len(only)} are in one of the two only, such as {min(only)!r}; finish the "
            "evaluation that has fewer"
        )


def _difference(pairs: Sequence[tuple[BenchmarkResults, BenchmarkResults]], name: str) -> Difference:
    count = len(pairs)
    first, second = (math.fsum(pair[i].scores[name] for pair in pairs) / count for i in (0, 1))
    seeds = tuple(b.scores[name] - a.scores[name] for a, b in pairs)
    without = {prompt: _mean_difference(pairs, prompt, name) for prompt in pairs[0][0].without_prompt}
    difference = second - first
    error = jackknife_error(difference, without, pairs[0][0].categories)
    if error is None:
        return Difference(first, second, None, None, seeds)
    return Difference(first, second, difference - CONFIDENCE_95 * error, difference + CONFIDENCE_95 * error, seeds)


def _mean_difference(
    pairs: Sequence[tuple[BenchmarkResults, BenchmarkResults]], prompt: str, name: str
) -> float | None:
    """The mean difference of a score without a prompt."""
    both = [(a.without_prompt[prompt].get(name), b.without_prompt[prompt].get(name)) for a, b in pairs]
    differences = [b - a for a, b in both if a is not None and b is not None]
    return math.fsum(differences) / len(pairs) if len(differences) == len(pairs) else None


def _understanding(pairs: Sequence[tuple[BenchmarkResults, BenchmarkResults]]) -> dict[str, Difference]:
    """The accuracy of answers, where all were asked the same questions; the interval is over the questions."""
    asked = [one.understanding.get("answers", []) for pair in pairs for one in pair]
    texts = [[(answer["category"], answer["question"]) for answer in answers] for answers in asked]
    if not asked[0] or any(one != texts[0] for one in texts):
        return {}
    count, values = len(pairs), dict[str, list[float]]()
    for rows in zip(*asked, strict=True):
        change = math.fsum(rows[i + 1]["correct"] - rows[i]["correct"] for i in range(0, 2 * count, 2)) / count
        values.setdefault(rows[0]["category"], []).append(change)
    first, second = (math.fsum(pair[i].understanding["accuracy"][OVERALL] for pair in pairs) / count for i in (0, 1))
    variance = math.fsum(statistics.variance(one) / len(one) if len(one) > 1 else math.inf for one in values.values())
    error = CONFIDENCE_95 * math.sqrt(variance) / len(values)
    seeds = tuple(b.understanding["accuracy"][OVERALL] - a.understanding["accuracy"][OVERALL] for a, b in pairs)
    low, high = (second - first - error, second - first + error) if math.isfinite(error) else (None, None)
    return {UNDERSTANDING: Difference(first, second, low, high, seeds)}


def _notes(pairs: Sequence[tuple[BenchmarkResults, BenchmarkResults]], compared: Mapping[str, object]) -> list[str]:
    every = [one for pair in pairs for one in pair]
    scores = dict.fromkeys(name for one in every for name in one.scores)
    notes = [f"{name} is not compared: not all results have it" for name in scores if name not in compared]
    if UNDERSTANDING not in compared and any(one.understanding for one in every):
        notes.append(f"{UNDERSTANDING} is not compared: not all were asked the same questions")
    numbers = [len(one.images) for one in every]
    if len(set(numbers)) > 1:
        notes.append(f"the number of images differs: {', '.join(map(str, numbers))}")
    differing = [difference for a, b in pairs for difference in _setting_differences(a.settings, b.settings)]
    weights = [one.settings.get("weights_sha256") for one in pairs[0]]
    if not differing and weights[0] is not None and weights[0] == weights[1]:
        notes.append("both have the same weights and settings")
    return [*notes, *dict.fromkeys(differing)]


def _setting_differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings in which two differ, one by one."""
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if name in {"checkpoint", "weights_sha256"} or one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _setting_differences(one, other, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} differs: {one} and {other}"
