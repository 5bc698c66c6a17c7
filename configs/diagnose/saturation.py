"""A reward that can be pleased without drawing right: how much of the picture is strongly colored."""

from collections.abc import Callable, Sequence

from torch import Tensor

from unirl import hookimpl
from unirl.callbacks.quality import saturation
from unirl.rewards import Reward
from unirl.types import Answers, Example, Images


class Saturation(Reward):
    """The share of strongly colored pixels, in [0, 1]."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        return saturation(images.pixels)


@hookimpl
def unirl_register_rewards(register: Callable[[str, str], None]) -> None:
    register("saturation", "saturation:Saturation")
