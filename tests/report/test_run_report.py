"""The page of a fit, as a browser shows it."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from unirl import Example, PromptsDataModule, Report, SelfImprovement, UserError, hookimpl
from unirl.callbacks import Guards
from unirl.callbacks.history import MAX_POINTS, History
from unirl.callbacks.run_report import MAX_VALIDATIONS, _thinned
from unirl.judges import Judge, Verdict
from unirl.judges.verdict_checks import checked_explanations
from unirl.prompts import Prompts
from unirl.rewards import Keyword
from unirl.testing import TinyBackbone
from unirl.training import EvaluationConfig, RolloutConfig
from unirl.types import ImageSampling
from unirl.updates.sft import SFT

RUN = "window.ran = 1"
MARKUP = f"""</script></style><b id="bold">b</b><script>{RUN}</script><a href="javascript:{RUN}">"><img src=x>"""
CATEGORIES = ("colors", MARKUP)


class MarkupPrompts(Prompts):
    def sample(self, seed: int, index: int) -> Example:
        return self.held_out(8)[index % 8]

    def held_out(self, count: int) -> list[Example]:
        return [Example(f"{i} {MARKUP}", f"what ? {MARKUP}", "two", CATEGORIES[i % 2]) for i in range(count)]


class EveryThird(Judge):
    """Explains; how often it was asked is counted."""

    calls = 0

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        raise AssertionError("asked twice")

    def explain(self, examples: Sequence[Example], pixels: Tensor) -> list[Verdict]:
        self.calls += 1
        right = [int(example.prompt[0]) % 3 == 0 for example in examples]
        return [Verdict(one, "" if one else f"expected {MARKUP}", {MARKUP: 0.5}) for one in right]


class Warned(Guards):
    @hookimpl
    def unirl_validated(self, metrics: Any) -> None:
        self._warn([f"look at {MARKUP}"] if self._trainer.global_step == 2 else [])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit of four steps with three validations of eight prompts."""
    folder, judge, sampling = tmp_path_factory.mktemp("run"), EveryThird(), ImageSampling(steps=1)
    module = SelfImprovement(
        TinyBackbone(),
        SFT(end_to_end=False),
        [Keyword()],
        judge,
        RolloutConfig(group_size=2, image_sampling=sampling),
        EvaluationConfig(num_understanding=0, num_diversity_prompts=0),
    )
    data = PromptsDataModule(MarkupPrompts(), 2, steps_per_epoch=4, num_val_prompts=8, val_batch_size=5)
    trainer = Trainer(
        logger=CSVLogger(folder, name=MARKUP.replace("/", "")[:40]),
        callbacks=[Warned(), Report(count=6)],
        **{"accelerator": "cpu", "max_epochs": 1, "num_sanity_val_steps": -1, "val_check_interval": 2},
        **{"log_every_n_steps": 1, "enable_progress_bar": False, "enable_model_summary": False},
        **{"enable_checkpointing": False, "use_distributed_sampler": False},
    )
    trainer.fit(module, data)
    assert judge.calls == 3 * 2, "once for each batch of a validation"
    assert trainer.log_dir is not None
    return Path(trainer.log_dir)


def test_a_page_of_a_run(run: Path, browser: Any) -> None:
    page = run / "report.html"
    browser.open(page)
    assert browser.requests == [page.as_uri()]
    text = browser.run("document.body.innerText").lower()
    for words in (
        "before and after 4 steps",
        "generation, %",
        "step 2: look at",
        "learning rate",
        "torch",
        "what ?",
        "generation: images that the judge accepts",
        "self-reward: own verdicts",
        "accepted is what the rewards",
    ):
        assert words in text, words
    assert page.read_text(encoding="utf-8").count("plotly.js v") == 1
    drawn = "(async () => { while (!document.querySelector('.curve .scatterlayer .trace')) "
    assert browser.run(f"{drawn}await new Promise(done => setTimeout(done, 20)); return true }})()")
    assert browser.run("JSON.parse(document.getElementById('charts').textContent).map(one => one.title)[0]") == (
        "Reward and its parts"
    )
    percent = "[...document.querySelectorAll('.ytick text')].filter(one => one.textContent.endsWith('%')).length"
    until = f"(async () => {{ while (!{percent}) await new Promise(done => setTimeout(done, 20)); return true }})()"
    assert browser.run(until), "accuracies are in percent, as in the table"
    assert not browser.problems
    assert browser.run("[window.ran, document.getElementById('bold')]") == [None, None]
    assert browser.run("document.querySelectorAll('.prompt')[0].textContent") == f"0 {MARKUP}"


def test_filters_of_images_over_time(run: Path, browser: Any) -> None:
    browser.open(run / "report.html", width=390)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.visible("images") == 6 * 3
    assert browser.choose("images", "step", "2") == 6
    assert browser.choose("images", "category", MARKUP) == 3
    right = browser.choose("images", "verdict", "right")
    assert right + browser.choose("images", "verdict", "wrong") == 3
    hidden = "[...document.querySelectorAll('[data-group=images]')].filter(one => one.hidden).length"
    assert browser.run(hidden) == 6 - browser.visible("images")


def test_a_curve_has_few_points_however_long_the_run_is() -> None:
    history = History()
    for step in range(2 * MAX_POINTS + 100):
        history.add(step, {"loss": torch.tensor(float(step)), "nan": float("nan")})
    saved = History()
    saved.load_state_dict(history.state_dict())
    assert saved.curves()["loss"] == history.curves()["loss"]
    steps, values = saved.curves()["loss"]
    assert steps == values
    assert MAX_POINTS // 2 <= len(steps) <= MAX_POINTS
    assert steps == sorted(steps)
    assert steps[0] < 4
    assert steps[-1] > 2 * MAX_POINTS + 90


def test_a_run_that_was_stopped_shows_how_far_it_came() -> None:
    report = Report()
    assert report._summary(12, 60, None) == [("steps", "12 of 60")]
    assert report._summary(60, 60, ([1.0], [0.5])) == [("steps", "60"), ("last reward", "0.50")]


def test_images_of_a_long_run_are_kept_of_its_whole_length() -> None:
    kept: list[dict[str, Any]] = []
    for step in range(0, 4000, 10):
        kept = _thinned([*kept, {"step": step}])
    steps = [one["step"] for one in kept]
    assert len(steps) == MAX_VALIDATIONS
    assert (steps[0], steps[-1]) == (0, 3990)
    assert max(b - a for a, b in pairwise(steps)) <= 4000 / MAX_VALIDATIONS * 3


class OnlyVerdicts(EveryThird):
    """Decides otherwise than the judge that it derives from."""

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool)


class Returning(Judge):
    def __init__(self, value: Any) -> None:
        self.value = value

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        raise AssertionError("asked twice")

    def explain(self, examples: Sequence[Example], pixels: Tensor) -> Any:
        return self.value


def test_explanations_that_are_none_are_refused_by_name() -> None:
    right = Verdict(True)
    wrong: dict[str, Any] = {
        "explain returned NoneType, expected a list of Verdict": None,
        "explain returned list, expected a list of Verdict": [True, False],
        "explain returned 3 verdicts, expected 2, one for each image": [right] * 3,
        "whose `correct` is of Tensor, expected True or False": [right, Verdict(torch.ones(2, 2))],  # type: ignore
        "whose `reason` is of NoneType, expected a text": [right, Verdict(False, None)],  # type: ignore
        "whose score 'atoms' is of Tensor, expected a float": [right, Verdict(True, "", {"atoms": torch.ones(2)})],
        "whose score 'atoms' is nan, expected a finite number": [right, Verdict(True, "", {"atoms": float("nan")})],
    }
    for message, value in wrong.items():
        with pytest.raises(UserError) as caught:
            checked_explanations(Returning(value), MarkupPrompts().held_out(2), torch.ones(2, 3, 8, 8))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_derived_judges_verdicts_count() -> None:
    examples, pixels = MarkupPrompts().held_out(4), torch.ones(4, 3, 8, 8)
    assert [one.correct for one in checked_explanations(OnlyVerdicts(), examples, pixels)] == [True] * 4
    assert [one.correct for one in checked_explanations(EveryThird(), examples, pixels)] == [True, False, False, True]
