"""Sign bits to integer codes and back: MAGVIT-v2's lookup-free quantisation."""

import torch
from torch import Tensor


def bits_to_codes(bits: Tensor) -> Tensor:
    """Integer codes from sign bits, most significant first.

    Args:
        bits: True where the channel is positive.

    Shapes:
        bits (B, Z, H, W) bool; returns (B, H, W) int64 in [0, 2 ** Z).

    Example:
        >>> bits_to_codes(torch.tensor([True, False, True]).view(1, 3, 1, 1)).item()
        5
    """
    powers = 2 ** torch.arange(bits.shape[1] - 1, -1, -1, device=bits.device)
    return (bits * powers.view(1, -1, 1, 1)).sum(1)


def codes_to_bits(codes: Tensor, z_channels: int) -> Tensor:
    """Values -1 and +1 from integer codes, most significant bit first.

    Shapes:
        codes (B, H, W); returns (B, Z, H, W) float32.

    Example:
        >>> codes_to_bits(torch.tensor([[[5]]]), 3).flatten().tolist()
        [1.0, -1.0, 1.0]
    """
    shifts = torch.arange(z_channels - 1, -1, -1, device=codes.device).view(1, -1, 1, 1)
    return ((codes.unsqueeze(1) >> shifts) & 1) * 2.0 - 1.0
