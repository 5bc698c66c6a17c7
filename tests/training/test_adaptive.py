"""Adaptive sampling: what is drawn follows the reward variances of earlier steps, exactly repeatably."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unirl.backbones.showo import Showo
from unirl.errors import UserError
from unirl.prompts import JsonLines, Prompts
from unirl.rewards.likelihood import Likelihood
from unirl.training import AdaptiveSampling, PromptsDataModule
from unirl.training.adaptive import AdaptiveSampler
from unirl.types import Answers, Example, Images, Rollout
from unirl.updates.sft import SFT
from unirl_shapes.prompts import ShapesPrompts

CATEGORIES = ShapesPrompts.categories
PROMPTS_PER_STEP = 6


def rollout_of(examples: Sequence[Example], varied: Sequence[str], spread: float = 1.0) -> Rollout:
    """Groups of two, whose rewards differ by `spread` where the prompt or its category is among `varied`."""
    scores = [s for e in examples for s in (0.5, 0.5 + spread * (e.category in varied or e.prompt in varied))]
    rows, size = [e for e in examples for _ in range(2)], 2 * len(examples)
    ids = torch.zeros(size, 1, dtype=torch.long)
    answers = Answers(ids, ids.bool(), [""] * size)
    return Rollout(rows, Images(ids), answers, torch.tensor(scores), {}, torch.zeros(size) > 0, group_size=2)


def step(sampler: AdaptiveSampler, number: int, varied: Sequence[str], spread: float = 1.0) -> list[Example]:
    start = number * PROMPTS_PER_STEP
    examples = sampler.sample(range(start, start + PROMPTS_PER_STEP))
    sampler.observe(number, rollout_of(examples, varied, spread))
    return examples


def shapes(**options: Any) -> AdaptiveSampler:
    return AdaptiveSampler(ShapesPrompts(), PROMPTS_PER_STEP, config=AdaptiveSampling(**options))


class Colors(Prompts):
    """Neither names its categories nor is a finite list; "rare" is one of 50 examples."""

    def sample(self, seed: int, index: int) -> Example:
        return Example(f"{index}", "?", "red", "common" if index % 50 else "rare")

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return []


class NamedColors(Colors):
    categories = ("common", "rare")


@pytest.fixture
def listed(tmp_path: Path) -> JsonLines:
    rows = [{"prompt": f"{i}", "question": "?", "answer": "x", "category": ["even", "odd"][i % 2]} for i in range(9)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return JsonLines(str(tmp_path / "prompts.jsonl"))


def test_categories_whose_rewards_vary_are_drawn_more_often_and_none_below_its_floor() -> None:
    sampler, drawn = shapes(floor=0.3), Counter[str]()
    for number in range(200):
        drawn.update(e.category for e in step(sampler, number, ["counting"]))
    shares = sampler.shares(200)
    assert shares == pytest.approx({c: 0.05 + 0.7 * (c == "counting") for c in CATEGORIES})
    # of 1,200 draws a category is expected to get 60, and never gets none
    assert all(30 < drawn[c] < 110 for c in CATEGORIES if c != "counting"), drawn
    assert drawn["counting"] > 800


def test_weights_of_the_source_decide_where_variances_are_equal() -> None:
    sampler = AdaptiveSampler(ShapesPrompts({"counting": 3.0, "colors": 1.0}), PROMPTS_PER_STEP)
    for number in range(20):
        step(sampler, number, CATEGORIES)
    assert sampler.shares(20) == pytest.approx({"counting": 0.75, "colors": 0.25})


def test_shares_are_those_of_the_rollouts_up_to_the_step_before_the_last() -> None:
    """By hand: the last two groups of a category count; a step's own batch may be fetched while the one before runs."""
    sampler = AdaptiveSampler(ShapesPrompts({"counting": 1.0, "colors": 1.0}), 2, config=AdaptiveSampling(0.5, 2))
    variances: dict[str, list[tuple[int, float]]] = {"counting": [], "colors": []}
    for number in range(12):
        seen = {c: [v for n, v in values if n <= number - 2][-2:] for c, values in variances.items()}
        means = {c: sum(values) / len(values) if values else None for c, values in seen.items()}
        known = [mean for mean in means.values() if mean is not None]
        filled = {c: sum(known) / len(known) if mean is None and known else mean or 0 for c, mean in means.items()}
        total = sum(filled.values())
        expected = {c: 0.25 + 0.5 * (v / total) if total else 0.5 for c, v in filled.items()}
        assert sampler.shares(number) == pytest.approx(expected)
        examples = sampler.sample([2 * number, 2 * number + 1])
        scores = torch.tensor([0.0, 0.1 * number, 1.0, 1.3])
        for example, variance in zip(examples, ((0.1 * number) ** 2 / 2, 0.045), strict=True):
            variances[example.category].append((number, variance))
        sampler.observe(number, replace(rollout_of(examples, []), scores=scores))


@pytest.mark.parametrize("source", ["categories", "prompts"])
def test_a_resumed_sampler_goes_on_as_if_it_had_not_stopped(source: str, listed: JsonLines, tmp_path: Path) -> None:
    """Also where a batch was fetched before the step before it ended, and where a step ran twice."""
    prompts = listed if source == "prompts" else ShapesPrompts()
    varied = ["counting", "colors", "3", "4"]

    def make() -> AdaptiveSampler:
        return AdaptiveSampler(prompts, PROMPTS_PER_STEP, config=AdaptiveSampling(num_groups=3))

    uninterrupted = make()
    expected = [step(uninterrupted, number, varied, number) for number in range(12)]
    stopped = make()
    for number in range(7):
        start = (number + 1) * PROMPTS_PER_STEP
        examples = stopped.sample(range(number * PROMPTS_PER_STEP, start))
        assert stopped.sample(range(start, start + PROMPTS_PER_STEP)) == expected[number + 1]  # fetched ahead
        stopped.observe(number, rollout_of(examples, varied, number))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    for first in (7, 6):  # the checkpoint may be that of a step that failed after its rollout
        resumed = make()
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert [step(resumed, n, varied, n) for n in range(first, 12)] == expected[first:]
        assert resumed.state_dict() == uninterrupted.state_dict()


def test_a_second_run_with_the_same_data_repeats_the_first() -> None:
    sampler = shapes()
    runs = [[step(sampler, number, ["counting"]) for number in range(8)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_prompts_of_a_finite_list_are_drawn_by_their_own_last_group(listed: JsonLines) -> None:
    sampler = AdaptiveSampler(listed, PROMPTS_PER_STEP, config=AdaptiveSampling(floor=0.36))
    drawn = Counter(e.prompt for number in range(300) for e in step(sampler, number, ["3"]))
    assert sampler.shares(300) == pytest.approx({"even": 5 * 0.04, "odd": 4 * 0.04 + 0.64})
    assert drawn.keys() == {str(i) for i in range(9)}
    # 1,800 draws: a share of 0.68 and of 0.04
    assert drawn["3"] > 1000
    assert all(40 < drawn[str(i)] < 120 for i in range(9) if i != 3), drawn


def test_a_prompt_that_was_not_drawn_yet_counts_as_its_category(listed: JsonLines) -> None:
    sampler = AdaptiveSampler(listed, 1, config=AdaptiveSampling(floor=0.1))
    (example,) = sampler.sample([0])
    sampler.observe(0, rollout_of([example], []))  # its category does not vary; the other is unknown
    category, other = example.category, {"even": "odd", "odd": "even"}[example.category]
    number = 1
    while example.category == category:
        (example,) = sampler.sample([number])
        sampler.observe(number, rollout_of([example], [other]))
        number += 1
    assert len(sampler.state_dict()["prompts"]) < 5  # some prompts of either category have not been drawn
    assert sampler.shares(number + 1)[category] == pytest.approx(0.1 * (5 if category == "even" else 4) / 9)


def test_rare_categories_are_found() -> None:
    sampler = AdaptiveSampler(NamedColors(), PROMPTS_PER_STEP)
    assert sampler.shares(0) == {"common": 0.5, "rare": 0.5}
    examples = [example for number in range(20) for example in step(sampler, number, ["rare"])]
    assert Counter(e.category for e in examples)["rare"] > 70
    with pytest.raises(UserError, match="NamedColors: no training example of the category 'none' was found"):
        NamedColors().sample_category(0, 0, "none")


def test_equal_scores_have_no_variance() -> None:
    """The mean of equal floats may differ from them."""
    sampler = shapes(floor=0.5)
    examples = sampler.sample(range(PROMPTS_PER_STEP))
    rollout = rollout_of(examples, [])
    scores = torch.tensor([0.5, 0.7, 0.9, 0.5, 0.7, 0.9]).repeat_interleave(3)
    sampler.observe(0, replace(rollout, scores=scores, group_size=3))
    assert sampler.shares(2) == pytest.approx(dict.fromkeys(CATEGORIES, 1 / 6))
    sampler.observe(1, replace(rollout, scores=torch.tensor([3e38, -3e38] * PROMPTS_PER_STEP)))
    assert sum(sampler.shares(3).values()) == pytest.approx(1)


def test_what_cannot_be_sampled_adaptively_is_refused(runs, shapes_checkpoint: Path, tmp_path: Path) -> None:
    refused = [
        ("Colors does not say which categories it has", {"prompts": Colors()}),
        (r"data\.sampler 'adaptiv'; it must be uniform or adaptive", {"sampler": "adaptiv"}),
    ]
    for message, options in refused:
        with pytest.raises(UserError, match=message):
            PromptsDataModule(**({"prompts": ShapesPrompts(), "sampler": "adaptive"} | options))
    PromptsDataModule(Colors())  # uniform sampling needs no categories
    rule = SFT(end_to_end=False, weight_by_failure_rate=False)
    model = runs.module(Showo(str(shapes_checkpoint)), rule, [Likelihood()], group_size=1)
    trainer, data = runs.trainer(tmp_path), runs.data(sampler="adaptive")
    with pytest.raises(UserError, match=r"a single image has no variance, and model\.rollout\.group_size is 1"):
        trainer.fit(model, data)


def test_a_run_logs_shares_and_observes_each_rollout(runs, shapes_checkpoint: Path, tmp_path: Path) -> None:
    """With two steps on a rollout and two batches of an optimizer step."""
    data = runs.data(sampler="adaptive", adaptive=AdaptiveSampling(0.6), prompts_per_step=4, steps_per_epoch=8)
    rule = SFT(end_to_end=False, answer_labels="prompt")
    model = runs.module(Showo(str(shapes_checkpoint)), rule, [Likelihood()], num_iterations=2)
    options = {"max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": False, "accumulate_grad_batches": 2}
    trainer = runs.trainer(tmp_path, **options)
    trainer.fit(model, data)
    shares = {n.removeprefix("data/share/"): v.item() for n, v in trainer.callback_metrics.items() if "data/share" in n}
    assert shares == pytest.approx(data.adaptive_sampler.shares(7))
    steps = {n for entries in data.adaptive_sampler.state_dict()["categories"].values() for n, _ in entries}
    assert steps == {0, 1, 4, 5}
    assert trainer.global_step == 4
