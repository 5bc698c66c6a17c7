"""One code for every picture, from the row before it to the row after it: all that the loop of a drawing repeats."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from unirl.backbones.janus.transformer import Transformer
from unirl.backbones.llama import FixedRow, NextRow
from unirl.decoding.autoregressive import pick
from unirl.decoding.prefix import Prefix
from unirl.types import ImageSampling


class Step:
    """Language model, head, guidance, chance, and the embedding of what was drawn; see `sample_codes`.

    Args:
        model: Draws.
        prefix: The prompts; under guidance followed by as many rows of no prompt.
        sampling: Guidance and temperature.
        length: How many codes will be drawn.
        compiled: One pass of fixed shapes, through `torch.compile`. What was compiled serves every later drawing of as
            many rows, whatever the weights have become: weights and buffers are its inputs.
    """

    def __init__(
        self, model: Transformer, prefix: Prefix, sampling: ImageSampling, length: int, compiled: bool = False
    ) -> None:
        self.model, self.guidance, self.temperature = model, sampling.guidance, sampling.temperature
        self.next_row = (FixedRow if compiled else NextRow)(model.parts.language_model, prefix, length)
        self.run = _compiled() if compiled else _run

    def __call__(self, embeds: Tensor, chance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next embeddings (R, D), codes (B,) and their log-probabilities (B,), from embeddings and chance (B,)."""
        return self.run(self.model, self.next_row, embeds, chance, self.guidance, self.temperature)


def _run(
    model: Transformer, next_row: NextRow, embeds: Tensor, chance: Tensor, guidance: float, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    logits = model.code_logits(next_row(embeds), guidance)
    code, log_prob = pick(logits, temperature, chance)
    after = model.embed_codes(code).to(embeds.dtype)  # as autocast leaves the first row
    return torch.cat((after, after)) if guidance else after, code, log_prob


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Kept, so that nothing is compiled twice."""
    return torch.compile(_run, dynamic=False)
