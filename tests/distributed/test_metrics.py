"""Metrics of two ranks with unequally many samples are those of one process with all of them."""

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from unirl.metrics.accuracy import AccuracyByCategory
from unirl.metrics.consistency import Consistency
from unirl.metrics.diversity import GroupDiversity
from unirl.metrics.self_reward import SelfRewardAccuracy

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from processes import run_processes

CATEGORIES = ["colors", "counting"]
SAMPLES_OF_RANK = (slice(0, 4), slice(4, 24))


def compute_metrics(folder: Path, processes: int) -> dict[str, float]:
    """All metrics, computed on this rank after it was given its samples."""
    if processes > 1:
        dist.init_process_group("gloo")
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.6, 0.7, 0.8])[:, None]
    correct_images, correct_answers, correct_references = torch.rand(3, 24, generator=generator) < probabilities
    codes, features = torch.randint(3, (24, 5), generator=generator), torch.randn(24, 6, generator=generator)
    categories = [CATEGORIES[i % 3 == 0] for i in range(24)]
    samples = SAMPLES_OF_RANK[dist.get_rank()] if processes > 1 else slice(None)
    metrics: dict[str, Metric] = {
        "generation": AccuracyByCategory(CATEGORIES),
        "self_reward": SelfRewardAccuracy(CATEGORIES),
        "consistency": Consistency(),
        "codes": GroupDiversity("hamming"),
        "features": GroupDiversity("cosine"),
    }
    metrics["generation"].update(correct_images[samples], categories[samples])
    metrics["self_reward"].update(correct_answers[samples], correct_images[samples], categories[samples])
    metrics["consistency"].update(correct_images[samples], correct_answers[samples], correct_references[samples])
    metrics["codes"].update(codes[samples], 4)
    metrics["features"].update(features[samples], 4)
    results: dict[str, float] = {}
    for name, metric in metrics.items():
        values: Tensor | Mapping[str, Tensor] = metric.compute()
        by_key = {"": values} if isinstance(values, Tensor) else values
        results |= {f"{name}/{key}": round(float(value), 6) for key, value in by_key.items()}
    if processes > 1:
        dist.destroy_process_group()
    return results


def test_two_ranks_compute_what_one_process_computes(tmp_path: Path) -> None:
    (one,) = run_processes(compute_metrics, tmp_path / "one", 1, processes=1)
    first, second = run_processes(compute_metrics, tmp_path / "two", 2)
    assert first == second == one
    assert len(one) > 10
    assert 0 < one["self_reward/overall"] < 1
