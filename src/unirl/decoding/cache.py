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
            self.keys[layer : layer + 1], self.values[layer : layer + 1] = [key], [value]
        return key, value

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of cached positions."""
        return self.keys[layer].shape[2] if self.keys else 0

    def rows(self, index: Tensor, grow: bool = False) -> "PrefixCache":
        """A cache for other rows: each entry of `index` names the row whose prefix to use."""
        return PrefixCache([k[index] for k in self.keys], [v[index] for v in self.values], grow)


class StaticCache:
    """Keys and values in buffers of a fixed size: a prefix, and room for a known number of later rows.

    Nothing is copied or allocated while it fills, and the place to write is a tensor, so a step that uses it can be
    compiled or captured.

    Args:
        prefix: What comes first.
        room: How many rows may follow.
        whole: Show attention the whole buffer, so that shapes never change (for compilation); a mask must then hide
            the rows that are not there yet. Otherwise it sees what has been written.
    """

    def __init__(self, prefix: PrefixCache, room: int, whole: bool = False) -> None:
        self.keys = [torch.nn.functional.pad(key, (0, 0, 0, room)) for key in prefix.keys]
        self.values = [torch.nn.functional.pad(value, (0, 0, 0, room)) for value in prefix.values]
        self.whole, self.length = whole, prefix.get_seq_length()
        self.place = torch.tensor([self.length], device=self.keys[0].device)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """A layer's keys and values so far, those of one new row included. (B, heads, length, head_dim)"""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.place, key)
        values.index_copy_(2, self.place, value)
        if self.whole:
            return keys, values
        return keys[:, :, : self.length + 1], values[:, :, : self.length + 1]

    def advance(self) -> None:
        """The next row comes."""
        self.length += 1
        self.place += 1

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of rows before the next one."""
        return self.length


Cache = PrefixCache | StaticCache
