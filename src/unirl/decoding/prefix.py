"""Sequences whose beginning is computed once: padding, masks, and rows that follow a prefix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unirl.decoding.cache import PrefixCache


class Rows(Protocol):
    """A transformer that computes some rows of sequences whose earlier rows may be cached."""

    def __call__(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states (B, S, D) of rows (B, S, D) under a mask (B, 1, S, P + S), True = may attend."""
        ...


@dataclass(frozen=True)
class Prefix:
    """The beginning of some sequences, computed once.

    Args:
        cache: Its keys and values.
        keys: True where a later row may see it.
        ends: Position of the first row after it.

    Shapes:
        keys (B, P) bool, ends (B,).
    """

    cache: PrefixCache
    keys: Tensor
    ends: Tensor

    def rows(self, index: Tensor, grow: bool = False) -> "Prefix":
        """The prefixes named by `index`, one for each of its entries."""
        return Prefix(self.cache.rows(index, grow), self.keys[index], self.ends[index])

    def shared(self, count: int, grow: bool = False) -> "Prefix":
        """As many rows as there are questions: of k x B of them, the first k are about the first prefix, and so on.

        Raises:
            ValueError: `count` is no multiple of the number of prefixes.
        """
        if count % len(self.keys):
            raise ValueError(f"{count} questions about {len(self.keys)} pictures: expected a multiple")
        index = torch.arange(len(self.keys), device=self.keys.device)
        return self.rows(index.repeat_interleave(count // len(self.keys)), grow)

    def positions(self, length: int) -> Tensor:
        """Positions (B, length) of the rows that follow."""
        return self.ends[:, None] + torch.arange(length, device=self.ends.device)


def prefill(transformer: Rows, embeds: Tensor, keys: Tensor) -> Prefix:
    """Causal prefixes, padded on either side; positions do not count pads.

    Args:
        transformer: Computes them.
        embeds: Their embeddings.
        keys: True where there is no pad.

    Shapes:
        embeds (B, P, D), keys (B, P) bool.
    """
    cache = PrefixCache(grow=True)
    transformer(embeds, causal_mask(keys), (keys.cumsum(1) - 1).clamp(min=0), cache)
    return Prefix(PrefixCache(cache.keys, cache.values), keys, keys.sum(1))


def follow(transformer: Rows, prefix: Prefix, embeds: Tensor, keys: Tensor) -> Tensor:
    """Hidden states (B, S, D) of right-padded rows that follow their prefixes, each seeing those before it.

    Shapes:
        embeds (B, S, D), keys (B, S) bool.
    """
    mask = suffix_mask(prefix.keys, causal_mask(keys))
    return transformer(embeds, mask, prefix.positions(embeds.shape[1]), prefix.cache)


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths, padded on the left.

    Shapes:
        returns ids (B, longest) int64 and where they are no pads (B, longest) bool.

    Example:
        >>> pad_left([[5, 6], [7]], 0)[0].tolist()
        [[5, 6], [0, 7]]
    """
    ids, keys = pad_right([row[::-1] for row in rows], pad)
    return ids.flip(1), keys.flip(1)


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths, padded on the right; see `pad_left`."""
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.long)
    return ids, torch.arange(width) < lengths[:, None]


def causal_mask(keys: Tensor) -> Tensor:
    """Each position sees itself and earlier ones that are not pads.

    Args:
        keys: True where the token is not a pad.

    Shapes:
        keys (B, T) bool; returns (B, 1, T, T) bool, True = may attend.
    """
    length = keys.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=keys.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=keys.device)
    return ((lower & keys[:, None, :]) | itself)[:, None]


def suffix_mask(prefix_keys: Tensor, suffix: Tensor) -> Tensor:
    """Mask of the rows that follow a prefix.

    Args:
        prefix_keys: True where the prefix may be seen.
        suffix: The suffix's view of itself.

    Shapes:
        prefix_keys (B, P), suffix (B or 1, 1, S, S); returns (B, 1, S, P + S) bool.
    """
    rows = prefix_keys[:, None, None, :].expand(-1, 1, suffix.shape[2], -1)
    return torch.cat((rows, suffix.expand(len(rows), -1, -1, -1)), dim=-1)
