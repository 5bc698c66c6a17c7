"""Random numbers that come from a given generator."""

import torch
from torch import Tensor


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise of the same shape, device and type.

    Args:
        like: Gives shape, device and type.
        generator: The only source of randomness.
    """
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=torch.float32)
    return -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(like.dtype)
