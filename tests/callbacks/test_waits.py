"""What callbacks, metrics and values read from a device, they read at once: each read waits for the device."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from unirl.callbacks.guards import _first_non_finite
from unirl.callbacks.quality import QualityControl
from unirl.metrics.diversity import GroupDiversity
from unirl.testing import make_rollout
from unirl.testing.pretend import is_supported, pretend_accelerator
from unirl.types import to_device

pytestmark = pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")


def waits(call: Callable[[torch.device], Callable[[], Any]]) -> tuple[Any, Counter[str]]:
    """What a prepared call returns, and its waits."""
    with pretend_accelerator() as accelerator:
        prepared = call(accelerator.device)
        with accelerator.count() as counts:
            return prepared(), counts.waits


def test_all_gradients_are_checked_at_once() -> None:
    def prepare(device: torch.device) -> Callable[[], str | None]:
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8))).to(device)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        model[5].bias.grad[1], model[6].weight.grad[0, 0] = float("nan"), float("inf")
        return lambda: _first_non_finite(model)

    name, counts = waits(prepare)
    assert name == "5.bias"
    assert counts.total() == 1, counts
    assert _first_non_finite(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("dropped", [1, 6])
def test_dropped_samples_are_recorded_at_once(dropped: int) -> None:
    def prepare(device: torch.device) -> Callable[[], Any]:
        rollout = to_device(make_rollout([0.0, 1.0] * 4, 2), device)
        control, weights = QualityControl(), torch.ones_like(rollout.scores)
        weights[:dropped] = 0
        problems = {"duplicate": weights == 0, "low_confidence": weights < 0}

        def record() -> list[dict[str, Any]]:
            control._record(rollout, problems, weights)
            return control._dropped

        return record

    rows, counts = waits(prepare)
    assert [row["problems"] for row in rows] == [["duplicate"]] * dropped
    assert counts.total() == 7, counts  # scores, weights, 2 problems and 3 means


def test_diversity_reads_nothing_until_it_is_computed() -> None:
    def prepare(device: torch.device) -> Callable[[], Any]:
        metric, codes = GroupDiversity("hamming").to(device), torch.arange(12, device=device).view(4, 3)
        return lambda: metric.update(codes, 2)

    assert not waits(prepare)[1]


def test_a_slice_of_a_rollouts_answers_reads_nothing() -> None:
    def prepare(device: torch.device) -> Callable[[], Any]:
        answers = to_device(make_rollout([0.0, 1.0] * 4, 2), device).answers
        return lambda: (list(answers[1:2].text), answers[1:2].ids.shape, list(answers.text[1:2]))

    (text, shape, expected), counts = waits(prepare)
    assert (text, shape[0]) == (expected, 1)
    assert not counts


def test_answers_are_selected_by_any_index() -> None:
    answers = make_rollout([0.0, 1.0] * 4, 2).answers
    rows = torch.zeros(len(answers), dtype=torch.bool)
    rows[[0, 2]] = True
    for index in (rows, torch.tensor([0, 2])):
        assert list(answers[index].text) == [answers.text[0], answers.text[2]]
