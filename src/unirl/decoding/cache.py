"""Keys and values of a sequence's beginning, computed once and attended to many times."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class PrefixCache:
    """Stands in for a transformers cache: attention sees the prefix before its own keys and values.

    Args:
        keys: Of each layer.
        values: Of each layer.
        grow: Whether what attention adds stays (text decoding) or is forgotten after the pass (denoising).

    Shapes:
        keys and values (B, heads, prefix, head_dim).
    """

    def __init__(self, keys: Sequence[Tensor] = (), values: Sequence[Tensor] = (), grow: bool = False) -> None:
        self.keys, self.values, self.grow = list(keys), list(values), grow

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The prefix followed by a layer's new keys and values."""
        if layer < len(self.keys):
            key = torch.cat((self.keys[layer], key), dim=2)
            value = torch.cat((self.values[layer], value), dim=2)
        if self.grow:
            self.put(key, value, layer)
        return key, value

    def put(self, key: Tensor, value: Tensor, layer: int) -> None:
        """Keep keys and values for those of a layer."""
        self.keys[layer : layer + 1], self.values[layer : layer + 1] = [key], [value]

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of cached positions."""
        return self.keys[layer].shape[2] if self.keys else 0

    def rows(self, index: Tensor, grow: bool = False) -> "PrefixCache":
        """A cache for other rows: each entry of `index` names the row whose prefix to use."""
        return PrefixCache([k[index] for k in self.keys], [v[index] for v in self.values], grow)


class LayerCache(PrefixCache):
    """Stands in for a growing cache while one layer is computed, perhaps twice; it has `seen` what it was given last.

    Args:
        cache: Where the rows before are; it stays as it is, and may grow later on.
    """

    seen: tuple[Tensor, Tensor]

    def __init__(self, cache: PrefixCache) -> None:
        super().__init__(cache.keys, cache.values)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The prefix followed by the layer's new keys and values."""
        self.seen = super().update(key, value, layer)
        return self.seen
