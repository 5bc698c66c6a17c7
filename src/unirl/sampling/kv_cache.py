"""Keys and values of a sequence's beginning, computed once and attended to many times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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


Computed = TypeVar("Computed", bound=Tensor | tuple[Tensor, ...])


def checkpointed(part: Callable[..., Computed], *given: Tensor, gradient_checkpointing: bool = True) -> Computed:
    """What a part computes; only what it was given is kept for the gradient, and it is computed again for it.

    Args:
        part: A pure function.
        given: Its arguments.
        gradient_checkpointing: Whether to do so.

    Source: Chen et al. 2016 (arXiv 1604.06174), activation checkpointing.
    """
    if gradient_checkpointing and torch.is_grad_enabled():
        computed: Computed = checkpoint(part, *given, use_reentrant=False)
        return computed
    return part(*given)


def run_layers(
    layers: Iterable[nn.Module],
    hidden: Tensor,
    cache: PrefixCache | None,
    gradient_checkpointing: bool = False,
    **rows: Any,
) -> Tensor:
    """Hidden states after all layers, each of which may be computed again, even where it fills a cache.

    Args:
        layers: Of transformers: each is called with hidden states, the cache and `rows`.
        hidden: What the first one is given.
        cache: Keys and values of earlier rows.
        recompute: As for `again`.
        rows: Masks, positions and the like.

    Shapes:
        hidden (B, S, D); returns the same.
    """
    for index, layer in enumerate(layers):
        if cache is None or not cache.grow:
            hidden = checkpointed(
                partial(layer, **{_name(type(layer).forward): cache}, **rows),
                hidden,
                gradient_checkpointing=gradient_checkpointing,
            )
            continue
        apart = LayerCache(cache)  # as it is now: it will have grown when the layer is computed again
        hidden, key, value = checkpointed(
            partial(_filling, layer, apart, rows), hidden, gradient_checkpointing=gradient_checkpointing
        )
        cache.put(key, value, index)
    return hidden


def _filling(layer: nn.Module, apart: LayerCache, rows: dict[str, Any], hidden: Tensor) -> tuple[Tensor, ...]:
    """A layer's hidden states, and the keys and values that its rows and those before them have."""
    hidden = layer(hidden, **{_name(type(layer).forward): apart}, **rows)
    return hidden, *apart.seen


@lru_cache
def _name(forward: Callable[..., Any]) -> str:
    """What a kind of layers calls the cache: transformers renamed it in version 5.24."""
    return "past_key_values" if "past_key_values" in signature(forward).parameters else "cache"
