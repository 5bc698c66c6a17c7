"""Janus as a causal transformer over text, image codes and image features."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration
from typing_extensions import override

from unirl.backbones.llama import LlamaDecoder, LlamaStaticDecoder
from unirl.backbones.precision import float32_logits
from unirl.backbones.transformer import CausalTransformer
from unirl.sampling.autoregressive import guide
from unirl.sampling.kv_cache import Prefix


class JanusTransformer(CausalTransformer):
    """transformers' Janus; computes only the rows and head columns that are read.

    Args:
        janus: The model.
        gradient_checkpointing: As for `CausalTransformer`.
    """

    def __init__(self, janus: JanusForConditionalGeneration, gradient_checkpointing: bool = True) -> None:
        super().__init__(gradient_checkpointing)
        self.janus = janus
        self.eval()

    @property
    def base_model(self) -> Any:
        """The `JanusModel`: language model, vision tower, image tokenizer and the heads between them."""
        return self.janus.base_model

    @property
    @override
    def language_model(self) -> Any:
        return self.base_model.language_model

    @property
    @override
    def float32_heads(self) -> Sequence[nn.Module]:
        return (self.janus.lm_head, self.base_model.generation_head)

    @override
    def incremental_decoder(self, prefix: Prefix, max_new_tokens: int, static_shapes: bool = False) -> LlamaDecoder:
        decoder = LlamaStaticDecoder if static_shapes else LlamaDecoder
        return decoder(self.language_model, prefix, max_new_tokens)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings (..., D) of integer codes (...); Janus understands images through their pixels."""
        return self.janus.prepare_embeddings_for_image_generation(codes)

    @override
    def text_logits(self, hidden: Tensor) -> Tensor:
        return float32_logits(self.janus.lm_head, hidden)

    @override
    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        head = self.base_model.generation_head

        def logits(hidden: Tensor) -> Tensor:
            features = head.activation_fn(head.proj_out(hidden))
            if guidance:  # the last layer is affine: guiding its input guides the logits, at half the cost
                cond, uncond = features.chunk(2)
                features = guide(cond, uncond, guidance).to(features.dtype)
            return head.vision_head(features)

        return float32_logits(logits, hidden)

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Features (B, n, D) of normalized images (B, 3, H, W)."""
        return self.base_model.get_image_features(pixels, return_dict=True).pooler_output

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Normalized images (B, 3, H, W) of integer codes (B, N) or soft codes (B, N, K)."""
        vq = self.base_model.vqmodel
        if not codes.is_floating_point():
            return vq.decode(codes)
        table = F.normalize(vq.quantize.embedding.weight, dim=-1)  # as the tokenizer looks up codes
        latents = codes.to(table.dtype) @ table
        height, width = vq.quantize.quant_state_dims
        return vq.decoder(vq.post_quant_conv(latents.unflatten(1, (height, width)).permute(0, 3, 1, 2)))
