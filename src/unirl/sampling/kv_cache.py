"""Key-value caches of prefixes that many sequences share: prefill once, extend many times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, wraps
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class PrefixCache:
    """A key-value cache with the interface that transformers' attention layers call.

    Args:
        keys: Keys of each layer.
        values: Values of each layer.
        grow: Whether new keys and values are appended (text decoding) or dropped after the pass (denoising, scoring).

    Shapes:
        keys and values (B, heads, prefix, head_dim).
    """

    def __init__(self, keys: Sequence[Tensor] = (), values: Sequence[Tensor] = (), grow: bool = False) -> None:
        self.keys, self.values, self.grow = list(keys), list(values), grow

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The cached keys and values of a layer followed by its new ones. Attention layers call it."""
        key = key.to(value.dtype)  # under autocast, rotary embeddings give float32
        if layer < len(self.keys):
            key = torch.cat((self.keys[layer], key), dim=2)
            value = torch.cat((self.values[layer], value), dim=2)
        if self.grow:
            self.set_layer(layer, key, value)
        return key, value

    def set_layer(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Replace the keys and values of a layer."""
        self.keys[layer : layer + 1], self.values[layer : layer + 1] = [key], [value]

    def get_seq_length(self, layer: int = 0) -> int:
        """Number of cached positions."""
        return self.keys[layer].shape[2] if self.keys else 0

    def select(self, indices: Tensor, grow: bool = False) -> "PrefixCache":
        """A cache whose rows are the given rows of this one."""
        return PrefixCache([k[indices] for k in self.keys], [v[indices] for v in self.values], grow)


class StaticCache(PrefixCache):
    """A cache in buffers of fixed length, written in place: nothing is copied when a token is added.

    Args:
        prefix: Cached keys and values of what comes first.
        max_new_tokens: Most tokens that follow.
    """

    def __init__(self, prefix: PrefixCache, max_new_tokens: int) -> None:
        self.length = prefix.get_seq_length()
        keys, values = (
            [F.pad(one, (0, 0, 0, max_new_tokens)) for one in part] for part in (prefix.keys, prefix.values)
        )
        super().__init__(keys, values)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The cached keys and values of a layer followed by its new ones, as views of the buffers."""
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end], self.values[layer][:, :, self.length : end] = key, value
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, count: int = 1) -> None:
        """Count the tokens that all layers have written."""
        self.length += count


class _LayerCache(PrefixCache):
    """Replaces a growing cache while one layer runs, in the forward pass and again in the backward pass."""

    updated: tuple[Tensor, Tensor]

    def __init__(self, cache: PrefixCache) -> None:
        super().__init__(cache.keys, cache.values)

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.updated = super().update(key, value, layer)
        return self.updated


class CachedTransformer(Protocol):
    """A transformer that computes new tokens of sequences whose earlier tokens are cached."""

    def __call__(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states (B, S, D) of embeddings (B, S, D) under a mask (B, 1, S, P + S), True where attention may."""
        ...


@dataclass(frozen=True)
class Prefix:
    """The first tokens of some sequences, computed once.

    Args:
        cache: Their keys and values.
        mask: True where later tokens may attend.
        next_positions: Position of the first token after each prefix.

    Shapes:
        mask (B, P) bool, next_positions (B,).
    """

    cache: PrefixCache
    mask: Tensor
    next_positions: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def select(self, indices: Tensor, grow: bool = False) -> "Prefix":
        """The given rows, which may repeat."""
        return Prefix(self.cache.select(indices, grow), self.mask[indices], self.next_positions[indices])

    def repeat_to(self, count: int, grow: bool = False) -> "Prefix":
        """As many rows as there are questions: of k x B questions the first k are about the first prefix, and so on.

        Raises:
            ValueError: `count` is not a multiple of the number of prefixes.
        """
        if count % len(self):
            raise ValueError(f"{count} questions about {len(self)} images: expected a multiple")
        indices = torch.arange(len(self), device=self.mask.device)
        return self.select(indices.repeat_interleave(count // len(self)), grow)

    def positions(self, length: int) -> Tensor:
        """Positions (B, length) of the tokens that follow."""
        return self.next_positions[:, None] + torch.arange(length, device=self.next_positions.device)


def prefill(transformer: CachedTransformer, embeds: Tensor, mask: Tensor) -> Prefix:
    """Compute prefixes under causal attention. Padding may be on either side; positions do not count it.

    Args:
        transformer: Computes them.
        embeds: Embeddings of the tokens.
        mask: True where a token is not padding.

    Shapes:
        embeds (B, P, D), mask (B, P) bool.
    """
    cache = PrefixCache(grow=True)
    transformer(embeds, causal_mask(mask), (mask.cumsum(1) - 1).clamp(min=0), cache)
    return Prefix(PrefixCache(cache.keys, cache.values), mask, mask.sum(1))


def extend(transformer: CachedTransformer, prefix: Prefix, embeds: Tensor, mask: Tensor) -> Tensor:
    """Hidden states of right-padded tokens that follow prefixes, under causal attention.

    Args:
        transformer: Computes them.
        prefix: What comes first; a growing cache keeps the new keys and values.
        embeds: Embeddings of the tokens that follow.
        mask: True where a token is not padding.

    Shapes:
        embeds (B, S, D), mask (B, S) bool; returns (B, S, D).
    """
    attention = suffix_mask(prefix.mask, causal_mask(mask))
    return transformer(embeds, attention, prefix.positions(embeds.shape[1]), prefix.cache)


class IncrementalDecoder:
    """One more token of each sequence at a time, by any transformer, over a static cache.

    Args:
        transformer: Computes the tokens.
        prefix: What comes first.
        max_new_tokens: Most tokens that follow.
    """

    def __init__(self, transformer: Any, prefix: Prefix, max_new_tokens: int) -> None:
        self.transformer, self.cache = transformer, StaticCache(prefix.cache, max_new_tokens)
        self.mask = F.pad(prefix.mask, (0, max_new_tokens), value=True)[:, None, None]
        self.positions, self.step = prefix.positions(max_new_tokens), 0

    def __call__(self, embeds: Tensor) -> Tensor:
        """Hidden states (B, D) of the next tokens, given their embeddings (B, D)."""
        mask = self.mask[..., : self.cache.length + 1]
        hidden = self.transformer(embeds[:, None], mask, self.positions[:, self.step, None], self.cache)
        self.cache.advance()
        self.step += 1
        return hidden[:, 0]


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int = 0) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths, padded on the left.

    Shapes:
        returns ids (B, longest) int64 and a mask (B, longest) bool, False at the padding.

    Example:
        >>> pad_left([[5, 6], [7]])[0].tolist()
        [[5, 6], [0, 7]]
    """
    ids, mask = pad_right([row[::-1] for row in rows], pad_token_id)
    return ids.flip(1), mask.flip(1)


def pad_right(rows: Sequence[Sequence[int]], pad_token_id: int = 0) -> tuple[Tensor, Tensor]:
    """Stack rows of different lengths, padded on the right; see `pad_left`."""
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    ids = torch.tensor([[*row, *[pad_token_id] * (longest - len(row))] for row in rows], dtype=torch.long)
    return ids, torch.arange(longest) < lengths[:, None]


def causal_mask(mask: Tensor) -> Tensor:
    """Each token attends to itself and to earlier tokens that are not padding.

    Args:
        mask: True where a token is not padding.

    Shapes:
        mask (B, T) bool; returns (B, 1, T, T) bool, True where attention may.
    """
    length = mask.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    diagonal = torch.eye(length, dtype=torch.bool, device=mask.device)
    return ((lower & mask[:, None, :]) | diagonal)[:, None]


def suffix_mask(prefix_mask: Tensor, suffix: Tensor) -> Tensor:
    """The attention mask of tokens that follow a prefix.

    Args:
        prefix_mask: True where the prefix may be attended to.
        suffix: Attention mask among the tokens that follow.

    Shapes:
        prefix_mask (B, P), suffix (B or 1, 1, S, S); returns (B, 1, S, P + S) bool.
    """
    prefix = prefix_mask[:, None, None, :].expand(-1, 1, suffix.shape[2], -1)
    return torch.cat((prefix, suffix.expand(len(prefix), -1, -1, -1)), dim=-1)


Output = TypeVar("Output", bound=Tensor | tuple[Tensor, ...])


def checkpointed(function: Callable[..., Output], *args: Tensor, gradient_checkpointing: bool = True) -> Output:
    """Call a function with gradient checkpointing: store only its arguments, and call it again in the backward pass.

    Args:
        function: A pure function.
        args: Its arguments.
        gradient_checkpointing: False calls it plainly, as does a call without gradient.

    Source: Chen et al. 2016 (arXiv 1604.06174).
    """
    if gradient_checkpointing and torch.is_grad_enabled():
        output: Output = checkpoint(function, *args, use_reentrant=False)
        return output
    return function(*args)


def run_layers(
    layers: Iterable[nn.Module],
    hidden: Tensor,
    cache: PrefixCache | None,
    gradient_checkpointing: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Hidden states after all layers of a transformer, with gradient checkpointing even where they fill a cache.

    Args:
        layers: Called with hidden states, the cache and `kwargs`; may return a tuple that begins with hidden states.
        hidden: Input of the first layer.
        cache: Keys and values of earlier tokens.
        gradient_checkpointing: Recompute each layer in the backward pass.
        kwargs: Masks, position embeddings and the like.

    Shapes:
        hidden (B, S, D); returns the same.
    """
    for index, layer in enumerate(layers):
        if cache is None or not cache.grow:
            run = partial(_run_layer, layer, cache, kwargs)
            hidden = checkpointed(run, hidden, gradient_checkpointing=gradient_checkpointing)
            continue
        # The layer sees the cache as it is now, also when the backward pass runs it again after the cache has grown.
        fill = partial(_fill_layer, layer, _LayerCache(cache), kwargs)
        hidden, key, value = checkpointed(fill, hidden, gradient_checkpointing=gradient_checkpointing)
        cache.set_layer(index, key, value)
    return hidden


def _run_layer(layer: nn.Module, cache: PrefixCache | None, kwargs: dict[str, Any], hidden: Tensor) -> Tensor:
    return _first(layer(hidden, **{_cache_argument(type(layer).forward): cache}, **kwargs))


def _fill_layer(layer: nn.Module, cache: _LayerCache, kwargs: dict[str, Any], hidden: Tensor) -> tuple[Tensor, ...]:
    """Hidden states, and the keys and values of earlier and new tokens together."""
    output = layer(hidden, **{_cache_argument(type(layer).forward): cache}, **kwargs)
    return output if isinstance(output, CachedOutput) else (_first(output), *cache.updated)


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class CachedOutput(NamedTuple):
    """The output of a layer whose `forward` went through `returns_cache`.

    Args:
        hidden: Hidden states.
        key: Keys of earlier and new tokens.
        value: Values of earlier and new tokens.
    """

    hidden: Tensor
    key: Tensor
    value: Tensor


def returns_cache(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's `forward` that also returns the keys and values which `run_layers` lets it add to a cache.

    FSDP gathers a layer for its backward pass when a gradient reaches one of its outputs, so all that carries gradient
    must be one.

    Args:
        forward: Of a transformer layer, or of any other module, whose output is left as it is.
    """

    @wraps(forward)
    def forward_with_cache(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        caches = [value for value in kwargs.values() if isinstance(value, _LayerCache)]
        if not caches:
            return output
        key, value = caches[0].updated
        return CachedOutput(
            _first(output), key.contiguous(), value.contiguous()
        )  # FSDP warns of outputs that are views

    return forward_with_cache


@lru_cache
def _cache_argument(forward: Callable[..., Any]) -> str:
    """The name of a layer's cache argument, which transformers renamed in version 5.24."""
    return "past_key_values" if "past_key_values" in signature(forward).parameters else "cache"
