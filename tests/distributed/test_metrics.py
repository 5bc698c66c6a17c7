"""Metrics of two processes with unequal shares are those of one process that saw it all."""

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

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from pair import together

CATEGORIES = ["colors", "counting"]
SHARES = (slice(0, 4), slice(4, 24))


def measured(folder: Path, processes: int) -> dict[str, float]:
    """Every figure, computed by this process after it has seen its share: four samples, or the other twenty."""
    if processes > 1:
        dist.init_process_group("gloo")
    chance = torch.Generator().manual_seed(0)
    right, said, seen = torch.rand(3, 24, generator=chance) < torch.tensor([0.6, 0.7, 0.8])[:, None]
    codes, features = torch.randint(3, (24, 5), generator=chance), torch.randn(24, 6, generator=chance)
    categories = [CATEGORIES[i % 3 == 0] for i in range(24)]
    part = SHARES[dist.get_rank()] if processes > 1 else slice(None)
    metrics: dict[str, Metric] = {"drawing": AccuracyByCategory(CATEGORIES), "critic": SelfRewardAccuracy(CATEGORIES)}
    metrics |= {"consistency": Consistency(), "codes": GroupDiversity("hamming"), "features": GroupDiversity("cosine")}
    metrics["drawing"].update(right[part], categories[part])
    metrics["critic"].update(said[part], right[part], categories[part])
    metrics["consistency"].update(right[part], said[part], seen[part])
    metrics["codes"].update(codes[part], 4)
    metrics["features"].update(features[part], 4)
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        values: Tensor | Mapping[str, Tensor] = metric.compute()
        parts = {"": values} if isinstance(values, Tensor) else values
        found |= {f"{name}/{key}": round(float(value), 6) for key, value in parts.items()}
    if processes > 1:
        dist.destroy_process_group()
    return found


def test_two_processes_measure_what_one_measures(tmp_path: Path) -> None:
    (whole,) = together(measured, tmp_path / "one", 1, processes=1)
    first, second = together(measured, tmp_path / "two", 2)
    assert first == second == whole
    assert len(whole) > 10
    assert 0 < whole["self_reward/overall"] < 1
