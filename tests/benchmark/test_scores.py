"""Standard errors and paired differences against closed forms."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

import pytest

from unirl import BenchmarkResults, Example, UserError, compare
from unirl.benchmark.folder import ImageFile
from unirl.benchmark.scores import score
from unirl.benchmark.understanding import accuracies
from unirl.judges import Judge, Verdict

Verdicts = Mapping[str, Mapping[str, list[bool]]]
"""By category and prompt."""


class Rule(Judge):
    def verdicts(self, examples, pixels):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Geometric(Rule):
    def summarize(self, examples, verdicts):  # type: ignore[no-untyped-def]
        return {"overall": math.exp(mean(math.log(v.scores["p"]) for v in verdicts))}


def flat(verdicts: Verdicts) -> tuple[list[ImageFile], list[Verdict]]:
    images = [
        (ImageFile(Example(prompt, category=category), i, Path()), Verdict(correct))
        for category, prompts in verdicts.items()
        for prompt, answers in prompts.items()
        for i, correct in enumerate(answers)
    ]
    return [image for image, _ in images], [verdict for _, verdict in images]


BEFORE: Verdicts = {
    "colors": {"a": [True, False], "b": [True, True], "c": [False, False]},
    "counting": {"d": [True, False], "e": [False, False]},
}
AFTER: Verdicts = {
    "colors": {"a": [True, True], "b": [True, True], "c": [False, True]},
    "counting": {"d": [True, False], "e": [False, True]},
}


def results(verdicts: Verdicts, name: str = "shapes") -> BenchmarkResults:
    images, judged = flat(verdicts)
    scores, errors, without = score(Rule(), images, judged)
    rows = [{"prompt": image.example.prompt, "category": image.example.category} for image in images]
    return BenchmarkResults(name, scores, errors, {}, {}, rows, without_prompt=without)


def test_errors_are_those_of_means_over_prompts() -> None:
    scores, errors, _ = score(Rule(), *flat(BEFORE))
    colors, counting = [0.5, 1.0, 0.0], [0.5, 0.0]
    assert scores == pytest.approx({"colors": 0.5, "counting": 0.25, "overall": 0.375})
    parts = [stdev(values) / math.sqrt(len(values)) for values in (colors, counting)]
    assert errors == pytest.approx({"colors": parts[0], "counting": parts[1], "overall": math.hypot(*parts) / 2})


def test_one_prompt_of_a_category_has_no_error() -> None:
    verdicts = {"colors": BEFORE["colors"], "single": {"f": [True]}}
    errors = score(Rule(), *flat(verdicts))[1]
    assert errors["single"] is None
    assert errors["overall"] is None
    assert errors["colors"] is not None


def test_any_aggregation_has_an_error() -> None:
    values = {"a": 0.5, "b": 0.8, "c": 0.2}
    images = [ImageFile(Example(prompt, category="x"), 0, Path()) for prompt in values]
    verdicts = [Verdict(True, scores={"p": value}) for value in values.values()]
    scores, errors, _ = score(Geometric(), images, verdicts)
    logs = [math.log(value) for value in values.values()]
    assert scores["overall"] == pytest.approx(math.exp(mean(logs)))
    assert errors["overall"] == pytest.approx(scores["overall"] * stdev(logs) / math.sqrt(3), rel=0.2)  # delta method


def test_the_interval_is_that_of_paired_differences(tmp_path: Path) -> None:
    for name, verdicts in (("a", BEFORE), ("b", AFTER)):
        (tmp_path / name).mkdir()
        results(verdicts).save(tmp_path / name)
    one = compare(tmp_path / "a", tmp_path / "b").differences["colors"]
    differences = [0.5, 0.0, 0.5]
    error = stdev(differences) / math.sqrt(3)
    assert one.second - one.first == pytest.approx(mean(differences))
    assert (one.low, one.high) == pytest.approx((mean(differences) - 1.96 * error, mean(differences) + 1.96 * error))


def test_several_runs_are_averaged(tmp_path: Path) -> None:
    for name, verdicts in (("a", BEFORE), ("b", AFTER), ("c", BEFORE)):
        (tmp_path / name).mkdir()
        results(verdicts).save(tmp_path / name)
    one = compare(tmp_path / "a", [tmp_path / "b", tmp_path / "c"]).differences["overall"]
    assert one.seeds == pytest.approx((0.2917, 0.0), abs=1e-4)
    assert one.second - one.first == pytest.approx(mean(one.seeds))


def test_answers_are_compared_by_question(tmp_path: Path) -> None:
    correct = {"a": [True, False, False, False], "b": [True, True, False, True]}
    for name, values in correct.items():
        examples = [Example("", f"{i}", "yes", "c") for i in range(len(values))]
        made = results(BEFORE)
        made.understanding.update(accuracies(Rule(), examples, ["yes" if one else "no" for one in values]))
        (tmp_path / name).mkdir()
        made.save(tmp_path / name)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    assert str(comparison.table().caption).endswith("difference over prompts, of understanding over questions")
    one = comparison.differences["understanding"]
    differences = [0, 1, 0, 1]
    assert one.second - one.first == 0.5
    assert one.high == pytest.approx(0.5 + 1.96 * stdev(differences) / 2)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    fewer = {"colors": BEFORE["colors"]}
    for name, made in (("a", results(BEFORE)), ("b", results(fewer)), ("c", results(BEFORE, "geneval"))):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name)
    (tmp_path / "d.json").write_text(json.dumps({"scores": 1}), encoding="utf-8")
    with pytest.raises(UserError, match="2 are in one of the two only, such as 'd'"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="results of other benchmarks: shapes and geneval"):
        compare(tmp_path / "a", tmp_path / "c")
    with pytest.raises(UserError, match=r"d.json is no results.json"):
        compare(tmp_path / "a", tmp_path / "d.json")
    with pytest.raises(UserError, match="No such file or directory; give a folder"):
        compare(tmp_path / "a", tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="2 runs against 3"):
        compare([tmp_path / "a"] * 2, [tmp_path / "a"] * 3)
