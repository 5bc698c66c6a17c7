"""Computing in 16 bit on float32 weights, without casting a weight more often than needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""The type that Lightning computes in, by the trainer's precision."""
CAST_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weights autocast casts at each use. It computes norms in float32, and embeddings in their own type."""


def cast_frozen_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen weights of linear layers and convolutions in the type that autocast computes in.

    Autocast would cast them at each use, to the same values. Not changed: trained weights, weights that another layer
    uses, too, such as an embedding, and the `float32_heads` of modules. Outside of autocast the model works again after
    `model.float()`.

    Args:
        model: Built; changed in place.
        dtype: That of autocast; float32 undoes it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.LayerNorm(2), nn.Linear(2, 2))
        >>> cast_frozen_weights(model, torch.bfloat16)
        >>> [parameter.dtype for parameter in model.parameters()][::2]
        [torch.bfloat16, torch.float32, torch.float32]
    """
    heads = float32_modules(model)
    layers = [module for module in model.modules() if isinstance(module, CAST_LAYERS) and module not in heads]
    others = set(model.modules()) - set(layers)
    kept = {id(parameter) for module in others for parameter in module.parameters(recurse=False)}
    for layer in layers:
        for parameter in layer.parameters(recurse=False):
            if not parameter.requires_grad and parameter.is_floating_point() and id(parameter) not in kept:
                parameter.data = parameter.data.to(dtype)


def float32_modules(model: nn.Module) -> set[nn.Module]:
    """The modules that compute in float32 under autocast: the `float32_heads` of any module, and what is in them.

    Args:
        model: Built.
    """
    heads = [head for module in model.modules() for head in getattr(module, "float32_heads", ())]
    return {module for head in heads for module in head.modules()}


def float32_logits(head: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """Logits by a head in float32, under autocast, too. Name its modules in `float32_heads`.

    Autocast would round a logit around 10 by up to 0.03, and the ratio of an update to what was sampled with it.

    Args:
        head: From hidden states to logits.
        hidden: Hidden states.

    Shapes:
        hidden (..., D); returns (..., K).

    Source: MiniMax 2025 (arXiv 2506.13585).
    """
    if not torch.is_autocast_enabled(hidden.device.type):
        return head(hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return head(hidden.float())


@contextmanager
def cached_casts(device: torch.device) -> Iterator[None]:
    """Cast each trained weight once in a `with` block, not at each use. No-op without autocast.

    Lightning's autocast caches nothing, so that a rollout would cast all weights for each code. Use it without
    gradient only: a cast that was made without would be used with it.

    Args:
        device: Of the weights.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    try:
        with torch.autocast(device.type, torch.get_autocast_dtype(device.type), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()
