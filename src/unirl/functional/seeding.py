"""Counter-based randomness: every use of random numbers has a generator of its own, seeded by what it is for.

No generator's state is carried from step to step, so a resumed run samples the same numbers as one that never stopped.
"""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A seed of 63 bits from what identifies a use of random numbers.

    Args:
        parts: Such as `(seed, step, rank, "images")`; their order matters.

    Returns:
        The seed: the same for the same parts in every process, on every machine.

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(device: torch.device | str, *parts: int | str) -> torch.Generator:
    """A generator on a device, seeded by `derive_seed`.

    Args:
        device: Device of the random numbers.
        parts: As for `derive_seed`.

    Example:
        >>> first, second = (torch.rand(1, generator=generator_for("cpu", 0, "images")) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    return torch.Generator(device).manual_seed(derive_seed(*parts))
