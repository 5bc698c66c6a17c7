"""The results table."""

from rich.console import Console

from unirl.callbacks.results import fit_title, print_results, summary_lines

CATEGORIES = ["single_object", "two_objects", "counting", "colors", "position", "color_attribution", "overall"]


def metrics(value: float) -> dict[str, dict[str, float]]:
    tasks = dict.fromkeys(("generation", "understanding", "self_reward"), dict.fromkeys(CATEGORIES, value))
    return tasks | {"consistency": {"mmu_given_t2i": value, "imbalance": value}}


def test_before_and_after_fit_in_80_columns() -> None:
    console = Console(width=80, record=True)
    with console.capture() as captured:
        print_results(console, metrics(0.5), metrics(0.612), fit_title(0, 400, 400))
    lines = captured.get().splitlines()
    rows = [line.split() for line in lines if "→" in line and "consistency" not in line]
    assert [row[0] for row in rows] == CATEGORIES
    assert all(row[1:] == ["50.0", "→", "61.2", "+11.2"] * 3 for row in rows)
    assert lines[0].startswith("before and after 400 steps")
    assert any(line.split() == ["category", "generation", "understanding", "self-reward"] for line in lines)


def test_names_of_categories_are_no_markup() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        print_results(console, None, {"generation": {"[easy]": 0.5, "[/]": 0.25, "overall": 0.375}}, "title")
    rows = [line.split() for line in captured.get().splitlines()]
    assert ["[easy]", "50.0"] in rows
    assert ["[/]", "25.0"] in rows


def test_a_narrow_table_does_not_wrap_its_title_and_explanations() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        print_results(console, None, {"generation": dict.fromkeys(CATEGORIES, 0.5)}, fit_title(0, None, 4))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[0] == "before training; there was no validation after its 4 steps"
    assert lines[-1] == "Percent. generation: images that the judge accepts"


def test_without_a_judge_there_is_no_empty_table() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        print_results(console, None, {"diversity": {"codes": 0.256}}, "validation")
    lines = ["validation", "without a judge, no accuracy is measured", "diversity: codes 25.6"]
    assert [line.rstrip() for line in captured.get().splitlines()] == lines


def test_metrics_without_categories_are_lines_below() -> None:
    (line,) = summary_lines(metrics(0.5), metrics(0.612))
    assert line == "consistency: Acc(MMU|T2I) 50.0 → 61.2 [green]+11.2[/], imbalance 50.0 → 61.2 [red]+11.2[/]"
    assert summary_lines(None, {"diversity": {"codes": 0.5}}) == ["diversity: codes 50.0"]


def test_titles() -> None:
    assert fit_title(3, None, 4) == "after 3 of 4 steps; there was no other validation"
    assert fit_title(0, None, 4) == "before training; there was no validation after its 4 steps"
    assert fit_title(2, 3, 4) == "after 2 and after 3 of 4 steps; there was no validation before training"
