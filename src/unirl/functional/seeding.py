"""Counter-based randomness: every use of random numbers has a generator of its own, seeded by what it is for.

No generator's state is carried from step to step, so a resumed run samples the same numbers as one that never stopped.
"""

import hashlib
from collections.abc import Callable, Iterable

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
        >>> numbers = draw_rows(lambda n, source: torch.rand(n, generator=source), 1, rng)
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


class PerImageGenerator(torch.Generator):
    """A generator for each image of a batch: the others have no effect on the random numbers of an image.

    `draw_rows` and `multinomial` draw from them. PyTorch itself can draw on the CPU only from this object, and then
    numbers that depend on the whole batch. Give each call generators of its own: how many numbers a call takes can
    depend on the whole batch, such as on its longest answer.

    Args:
        generators: One for each image, all of them on one device.

    Raises:
        ValueError: there is none, two are the same object, or their devices differ.

    Example:
        >>> generators = [generator_for("cpu", 0, "a red circle", index) for index in range(3)]
        >>> numbers = draw_rows(lambda n, rng: torch.rand(n, generator=rng), 3, PerImageGenerator(generators))
        >>> torch.equal(numbers[2:], torch.rand(1, generator=generator_for("cpu", 0, "a red circle", 2)))
        True
    """

    generators: tuple[torch.Generator, ...]
    device = property(lambda self: self.generators[0].device)
    """Device of the random numbers."""

    def __new__(cls, generators: Iterable[torch.Generator]) -> "PerImageGenerator":
        """Keep the generators."""
        given = tuple(generators)
        if not given:
            raise ValueError("PerImageGenerator got no generators; give one for each image")
        if len(devices := sorted({str(generator.device) for generator in given})) > 1:
            raise ValueError(f"PerImageGenerator got generators on {', '.join(devices)}; all must be on one device")
        if len(set(map(id, given))) != len(given):
            raise ValueError("PerImageGenerator got one generator for two images; each image needs its own")
        batch = super().__new__(cls)
        batch.manual_seed(derive_seed(*(generator.initial_seed() for generator in given)))
        batch.generators = given
        return batch

    def rows_per_image(self, rows: int) -> int:
        """How many rows of a batch belong to each image.

        Args:
            rows: Rows of the batch.

        Raises:
            ValueError: they are no multiple of the number of images.
        """
        per_image, remainder = divmod(rows, len(self.generators))
        if remainder:
            raise ValueError(f"PerImageGenerator has {len(self.generators)} generators for {rows} rows; give one each")
        return per_image


def draw_rows(
    draw: Callable[[int, torch.Generator | None], Tensor],
    rows: int,
    generator: torch.Generator | None = None,
    per_image: int = 1,
) -> Tensor:
    """Random numbers for the rows of a batch, which depend on a row's place in the whole batch only, or on its image.

    With a `RowGenerator`, the numbers of the whole batch are drawn, and those of its rows are returned. A part of them
    cannot be drawn alone: on a GPU, random numbers depend on how many are drawn at once. With a `PerImageGenerator`,
    the rows of each image are drawn from its own generator.

    Args:
        draw: `(rows, generator) -> (rows, ...)`: draws numbers for a number of rows from the generator that it gets.
        rows: How many rows; `per_image` for each image. The first rows of all images come first, then the second ones.
        generator: What is drawn from.
        per_image: Rows of each image, such as its random masks. Where it is 1, a `PerImageGenerator` of B images also
            draws k x B rows: the first k are those of the first image, and so on.

    Shapes:
        returns (rows, ...).

    Example:
        >>> draw_rows(lambda n, rng: torch.rand(n, 4, generator=rng), 2, generator_for("cpu", 0)).shape
        torch.Size([2, 4])
    """
    if isinstance(generator, PerImageGenerator):
        count = generator.rows_per_image(rows)
        parts = [draw(count, source) for source in generator.generators]
        return torch.cat(parts) if per_image == 1 else torch.stack(parts, 1).flatten(0, 1)
    if not isinstance(generator, RowGenerator):
        return draw(rows, generator)
    whole = draw(per_image * generator.total, generator)
    whole = whole.view(per_image, generator.total, *whole.shape[1:])
    # Under FSDP2 further rows are appended, whose results are not used.
    order = torch.arange(rows // per_image, device=generator.rows.device).clamp(max=len(generator.rows) - 1)
    return whole[:, generator.rows[order]].flatten(0, 1)


def multinomial(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """An index of each distribution, sampled by `torch.multinomial`; with a `PerImageGenerator` for each image alone.

    Args:
        probabilities: Weights that are at least 0. Images are the first dimension, or k rows of each image.
        generator: The only source of randomness.

    Shapes:
        probabilities (B, ..., K); returns (B, ...) int64.

    Example:
        >>> multinomial(torch.eye(3).expand(2, 3, 3)).tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    rows = probabilities.flatten(0, -2)
    if isinstance(generator, PerImageGenerator):
        images = rows.view(-1, generator.rows_per_image(len(rows)), rows.shape[-1])
        pairs = zip(images, generator.generators, strict=True)
        chosen = torch.cat([torch.multinomial(image, 1, generator=source) for image, source in pairs])
    else:
        chosen = torch.multinomial(rows, 1, generator=generator)
    return chosen.view(probabilities.shape[:-1])
