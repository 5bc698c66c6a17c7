"""What both judges are: models that are loaded when they are needed, and real images of the user."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from unirl import Example
from unirl.judges import Judge, ReferenceImages


class PretrainedJudge(Judge):
    """A judge whose models are `loaded` at their first use, and whose real images may be none.

    Attributes:
        loaded: The models; a cached property.
        images: The real images.
    """

    loaded: Any
    images: ReferenceImages | None

    def __getstate__(self) -> dict[str, Any]:
        # Copies load the models again: they are large, and some of transformers cannot be pickled.
        return {name: value for name, value in vars(self).items() if name != "loaded"}

    @override
    def load(self) -> None:
        """Load the models."""
        self.loaded  # noqa: B018 - the property loads

    @override
    def understanding_set(self, count: int, seed: int = 0) -> tuple[list[Example], list[str]] | None:
        """Questions about the reference images. Arguments are those of `ReferenceImages.understanding_set`."""
        return None if self.images is None else self.images.understanding_set(count, seed)

    @override
    def references(self, examples: Sequence[Example]) -> list[str | None] | None:
        """The reference image of each prompt. Arguments are those of `ReferenceImages.references`."""
        return None if self.images is None else self.images.references(examples)
