"""Janus's modules as the rows that somebody reads: text, codes and pictures over one language model."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import JanusForConditionalGeneration

from unirl.backbones.llama import IncrementalDecoder, LlamaRows, StaticCacheDecoder
from unirl.sampling.autoregressive import guide, sample_inverse_cdf
from unirl.sampling.kv_cache import Prefix
from unirl.types import ImageSampling


class Transformer(LlamaRows):
    """transformers' Janus; computes only rows and head columns that somebody reads."""

    def __init__(self, janus: JanusForConditionalGeneration, gradient_checkpointing: bool = True) -> None:
        super().__init__(gradient_checkpointing)
        self.janus = janus

    @property
    def device(self) -> torch.device:
        return self.janus.lm_head.weight.device

    @property
    def parts(self) -> Any:
        return self.janus.model

    @property
    def language_model(self) -> Any:
        return self.parts.language_model

    def embed(self, ids: Tensor) -> Tensor:
        return self.parts.language_model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """What the language model is given for codes it has drawn. (..., D)"""
        return self.janus.prepare_embeddings_for_image_generation(codes)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the text vocabulary. (..., V)"""
        return self.janus.lm_head(hidden)

    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        """Logits over the image codes. (B, ..., K)

        The head's last layer is affine, so guiding what enters it guides the logits, at half the cost.

        Args:
            hidden: Hidden states; under guidance those of the prompts, followed by as many of no prompt.
            guidance: w of `(1 + w) * cond - w * uncond`.
        """
        head = self.parts.generation_head
        features = head.activation_fn(head.proj_out(hidden))
        if guidance:
            cond, uncond = features.chunk(2)
            features = guide(cond, uncond, guidance).to(features.dtype)
        return head.vision_head(features)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """What the language model is given for normalised pictures. (B, 3, H, W) -> (B, n, D)"""
        return self.parts.get_image_features(pixels, return_dict=True).pooler_output

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pictures of integer codes (B, N) or of mixtures of codes (B, N, K); (B, 3, H, W), normalised."""
        vq = self.parts.vqmodel
        if not codes.is_floating_point():
            return vq.decode(codes)
        table = F.normalize(vq.quantize.embedding.weight, dim=-1)  # as the tokenizer looks codes up
        entries = codes.to(table.dtype) @ table
        height, width = vq.quantize.quant_state_dims
        return vq.decoder(vq.post_quant_conv(entries.unflatten(1, (height, width)).permute(0, 3, 1, 2)))


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
        self.next_row = (StaticCacheDecoder if compiled else IncrementalDecoder)(
            model.parts.language_model, prefix, length
        )
        self.run = _compiled() if compiled else _run

    def __call__(self, embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next embeddings (R, D), codes (B,) and their log-probabilities (B,), from embeddings and chance (B,)."""
        return self.run(self.model, self.next_row, embeds, uniforms, self.guidance, self.temperature)


def _run(
    model: Transformer,
    next_row: IncrementalDecoder,
    embeds: Tensor,
    uniforms: Tensor,
    guidance: float,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    logits = model.code_logits(next_row(embeds), guidance)
    code, log_prob = sample_inverse_cdf(logits, temperature, uniforms)
    after = model.embed_codes(code).to(embeds.dtype)  # as autocast leaves the first row
    return torch.cat((after, after)) if guidance else after, code, log_prob


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Kept, so that nothing is compiled twice."""
    return torch.compile(_run, dynamic=False)
