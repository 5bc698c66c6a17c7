"""Counter-based randomness: every use of random numbers has a generator of its own, seeded by what it is for.

No generator's state is carried from step to step, so a resumed run samples the same numbers as one that never stopped.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


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


class RowGenerator(torch.Generator):
    """A generator for some images of a batch. From `draw_rows` they get the numbers that they get in the whole batch.

    An image is then scored under the same random masks, however many images are scored at once.

    Args:
        generator: That of the whole batch. Its state is copied, and is not advanced.
        rows: Indices of the images in the batch.
        total: Images of the batch.

    Shapes:
        rows (R,).

    Example:
        >>> rng = RowGenerator(generator_for("cpu", 0), torch.tensor([2]), total=3)
        >>> numbers = draw_rows(lambda n: torch.rand(n, generator=rng), 1, rng)
        >>> torch.equal(numbers, torch.rand(3, generator=generator_for("cpu", 0))[2:])
        True
    """

    rows: Tensor
    total: int

    def __new__(cls, generator: torch.Generator, rows: Tensor, total: int) -> "RowGenerator":
        """Copy the generator."""
        copied = super().__new__(cls, generator.device)  # type: ignore[call-arg] # in torch's stubs it has none
        copied.set_state(generator.get_state())
        copied.rows, copied.total = rows, total
        return copied


def draw_rows(
    draw: Callable[[int], Tensor], rows: int, generator: torch.Generator | None = None, per_image: int = 1
) -> Tensor:
    """Random numbers for the rows of a batch, which depend on a row's place in the whole batch only.

    With a `RowGenerator`, the numbers of the whole batch are drawn, and those of its rows are returned. A part of them
    cannot be drawn alone: on a GPU, random numbers depend on how many are drawn at once.

    Args:
        draw: Draws numbers for a number of rows, the first dimension, from `generator`.
        rows: How many rows; `per_image` for each image. The first rows of all images come first, then the second ones.
        generator: What `draw` draws from.
        per_image: Rows of each image, such as its random masks.

    Shapes:
        returns (rows, ...).

    Example:
        >>> generator = generator_for("cpu", 0)
        >>> draw_rows(lambda n: torch.rand(n, 4, generator=generator), 2, generator).shape
        torch.Size([2, 4])
    """
    if not isinstance(generator, RowGenerator):
        return draw(rows)
    whole = draw(per_image * generator.total)
    whole = whole.view(per_image, generator.total, *whole.shape[1:])
    # Under FSDP2 further rows are appended, whose results are not used.
    order = torch.arange(rows // per_image, device=generator.rows.device).clamp(max=len(generator.rows) - 1)
    return whole[:, generator.rows[order]].flatten(0, 1)
