"""Layers that are computed again: the same numbers and gradients, over caches that grow once, with less kept."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.sampling.kv_cache import PrefixCache, checkpointed, run_layers


class Mixing(nn.Module):
    """Reads all rows that its cache shows it."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.key, self.value = index, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden: Tensor, past_key_values: PrefixCache | None, scale: float) -> Tensor:
        key, value = self.key(hidden)[:, None], self.value(hidden)[:, None]
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.index)
        return hidden + scale * (key.tanh() * value).sum((1, 2))[:, None]


class Renamed(Mixing):
    """What transformers calls the cache since version 5.24."""

    def forward(self, hidden: Tensor, cache: PrefixCache | None, scale: float) -> Tensor:  # type: ignore[override]
        return super().forward(hidden, cache, scale)


@pytest.fixture(params=[Mixing, Renamed])
def layers(request: pytest.FixtureRequest) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(request.param(index) for index in range(3))


def trained(layers: nn.ModuleList, gradient_checkpointing: bool) -> tuple[list[Tensor], int]:
    """Outputs and gradients of rows that follow two prefixes, and how many numbers were kept for the gradient."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    rows = [torch.randn(2, length, 8, generator=torch.Generator().manual_seed(length)) for length in (5, 4, 3)]
    layers.zero_grad()
    run = partial(run_layers, layers, gradient_checkpointing=gradient_checkpointing, scale=0.1)
    cache = PrefixCache(grow=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = [run(row, cache) for row in rows[:2]]
        found.append(run(rows[2], PrefixCache(cache.keys, cache.values)))
        found.append(run(rows[2], None))
    assert cache.get_seq_length() == 9
    torch.cat(found, 1).square().sum().backward()
    return [*found, *(p.grad for p in layers.parameters() if p.grad is not None)], kept


def test_gradient_checkpointing_has_the_same_outputs_and_gradients(layers: nn.ModuleList) -> None:
    (plain, much), (twice, little) = trained(layers, False), trained(layers, True)
    for one, other in zip(plain, twice, strict=True):
        torch.testing.assert_close(one, other)
    assert len(plain) == 4 + 3 * 4
    assert little < much / 2


def test_without_gradient_nothing_is_checkpointed() -> None:
    calls: list[Any] = []
    with torch.no_grad():
        checkpointed(lambda value: calls.append(value) or value, torch.ones(1))  # type: ignore[func-returns-value]
    assert len(calls) == 1
