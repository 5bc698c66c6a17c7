"""One code for every picture, from the row before it to the row after it."""

import torch
from torch import Tensor

from unirl.backbones.llama import IncrementalDecoder
from unirl.sampling.autoregressive import sample_inverse_cdf
from unirl.sampling.kv_cache import Prefix
from unirl.types import ImageSampling
from unirl_emu3.transformer import Transformer


class Step:
    """Language model, head, guidance, chance, and the embedding of what was drawn; see `sample_codes`.

    What closes a line is given to the model, and nothing is drawn from the row that would say it.

    Args:
        model: Draws.
        prefix: The prompts; under guidance followed by as many rows of the negative prompt.
        sampling: Guidance and temperature.
    """

    def __init__(self, model: Transformer, prefix: Prefix, sampling: ImageSampling) -> None:
        self.model, self.guidance, self.temperature = model, sampling.guidance, sampling.temperature
        self.next_row = IncrementalDecoder(model.language_model, prefix, model.layout.height * (model.layout.width + 1))
        self.end_of_line, self.drawn = model.end_of_line(len(prefix.keys)), 0

    def __call__(self, embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next embeddings (R, D), codes (B,) and their log-probabilities (B,), from embeddings and chance (B,)."""
        if self.drawn and self.drawn % self.model.layout.width == 0:
            self.next_row(embeds)
            embeds = self.end_of_line
        self.drawn += 1
        code, log_prob = sample_inverse_cdf(self.model.code_logits(self.next_row(embeds), self.guidance), self.temperature, uniforms)
        after = self.model.embed_codes(code)
        return torch.cat((after, after)) if self.guidance else after, code, log_prob
