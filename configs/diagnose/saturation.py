"""A reward that can be raised without generating correct images: the share of strongly colored pixels."""

from collections.abc import Callable, Sequence

from torch import Tensor

from unirl import Answers, Example, Images, hookimpl
from unirl.rewards import Reward


class Saturation(Reward):
    """The share of pixels whose strongest and weakest channel differ by more than a half, in [0, 1]."""

    needs_pixels = True

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        assert images.pixels is not None
        chroma = images.pixels.amax(1) - images.pixels.amin(1)  # (B, H, W)
        return (chroma > 0.5).float().mean((1, 2))


@hookimpl
def unirl_register_rewards(register: Callable[[str, str], None]) -> None:
    register("saturation", "saturation:Saturation")
