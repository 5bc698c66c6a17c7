"""A language model's layers over cached prefixes, with little kept for the gradient where that is asked for."""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unirl.decoding.cache import LayerCache, PrefixCache

Computed = TypeVar("Computed", bound=Tensor | tuple[Tensor, ...])


def again(part: Callable[..., Computed], *given: Tensor, recompute: bool = True) -> Computed:
    """What a part computes; only what it was given is kept for the gradient, and it is computed again for it.

    Args:
        part: A pure function.
        given: Its arguments.
        recompute: Whether to do so.

    Source: Chen et al. 2016 (arXiv 1604.06174), activation checkpointing.
    """
    if recompute and torch.is_grad_enabled():
        computed: Computed = checkpoint(part, *given, use_reentrant=False)
        return computed
    return part(*given)


def through(
    layers: Iterable[nn.Module], hidden: Tensor, cache: PrefixCache | None, recompute: bool = False, **rows: Any
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
            hidden = again(partial(layer, **{_name(type(layer).forward): cache}, **rows), hidden, recompute=recompute)
            continue
        apart = LayerCache(cache)  # as it is now: it will have grown when the layer is computed again
        hidden, key, value = again(partial(_filling, layer, apart, rows), hidden, recompute=recompute)
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
