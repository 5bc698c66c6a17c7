"""Randomness that is counted, not carried: every draw has a generator of its own, made from where it stands."""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from anything that names a draw, such as `(seed, step, rank, "images")`.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A generator on a device, seeded by `derive_seed`.

    Args:
        device: Where the random numbers will be needed.
        parts: What names the draw.
    """
    return torch.Generator(device).manual_seed(derive_seed(*parts))
