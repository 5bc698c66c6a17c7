"""Janus's modules as the rows that somebody reads: text, codes and pictures over one language model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import JanusForConditionalGeneration

from unirl.decoding.autoregressive import guide
from unirl.decoding.cache import PrefixCache

CHUNK = 1024
"""Codes whose logits are held at a time."""


class Transformer(nn.Module):
    """transformers' Janus; computes only rows and head columns that somebody reads."""

    def __init__(self, janus: JanusForConditionalGeneration, recompute: bool = True) -> None:
        super().__init__()
        self.janus, self.recompute = janus, recompute

    @property
    def device(self) -> torch.device:
        return self.janus.lm_head.weight.device

    @property
    def parts(self) -> Any:
        return self.janus.model

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of the given rows.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B, S); returns (B, S, D).
        """
        model, hidden = self.parts.language_model, embeds
        turned = model.rotary_emb(embeds, positions)
        once = cache is not None and cache.grow  # what grows would grow twice
        for layer in model.layers:
            block = partial(layer, attention_mask=mask, position_embeddings=turned, past_key_values=cache)
            hidden = block(hidden) if once else self.again(block, hidden)
        return model.norm(hidden)

    def again(self, part: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """What a part computes; for the gradient it computes it again, where `recompute` is set."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(part, *given, use_reentrant=False)
        return part(*given)

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

    def code_log_probs(self, hidden: Tensor, codes: Tensor, guidance: float, temperature: float) -> Tensor:
        """Log-probabilities of codes, a part of the positions at a time, whose logits are not kept for the gradient.

        Shapes:
            hidden (B or 2 B, N, D), codes (B, N); returns (B, N), nats.
        """

        def part(hidden: Tensor, codes: Tensor) -> Tensor:
            logits = self.code_logits(hidden, guidance).float() / (temperature or 1.0)
            return -F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape)

        size = max(1, CHUNK // len(codes))
        pieces = zip(hidden.split(size, 1), codes.split(size, 1), strict=True)
        return torch.cat([self.again(part, *piece) for piece in pieces], 1)

    def look(self, pixels: Tensor) -> Tensor:
        """What the language model is given for normalised pictures. (B, 3, H, W) -> (B, n, D)"""
        return self.parts.get_image_features(pixels, return_dict=True).pooler_output

    def paint(self, codes: Tensor) -> Tensor:
        """Pictures of integer codes (B, N) or of mixtures of codes (B, N, K); (B, 3, H, W), normalised."""
        vq = self.parts.vqmodel
        if not codes.is_floating_point():
            return vq.decode(codes)
        entries = codes @ F.normalize(vq.quantize.embedding.weight, dim=-1)  # as the tokenizer looks codes up
        height, width = vq.quantize.quant_state_dims
        return vq.decoder(vq.post_quant_conv(entries.unflatten(1, (height, width)).permute(0, 3, 1, 2)))
