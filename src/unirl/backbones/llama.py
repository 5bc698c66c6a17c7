"""Fast incremental decoding by the layers of transformers' Llama."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.sampling.kv_cache import IncrementalDecoder, Prefix

if TYPE_CHECKING:
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

PREFIX_MULTIPLE = 32
"""Static shapes pad prefixes to a multiple of it, so that few different shapes are compiled."""


class LlamaDecoder(IncrementalDecoder):
    """One more token of each sequence at a time, by the layers of transformers' Llama.

    It computes what `LlamaModel.forward` does, from the same modules (adapters included), in half the operations: for
    one token their number limits the speed, not their size. Queries and keys are rotated together, and attention reads
    the filled part of the buffers. Use one for each batch: it reads the norms' weights once.

    Args:
        model: transformers' `LlamaModel`, or one of the same modules.
        prefix: What comes first.
        max_new_tokens: Most tokens that follow.
        left_padding: Masked positions in front of the prefix.
    """

    step: Any

    def __init__(self, model: "LlamaModel", prefix: Prefix, max_new_tokens: int, left_padding: int = 0) -> None:
        layers: Any = model.layers
        self.layers = [(layer, _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)) for layer in layers]
        self.norm = _Norm(model.norm)
        self.heads, self.kv_heads = model.config.num_attention_heads, prefix.cache.keys[0].shape[1]
        self.keys = [F.pad(key, (0, 0, left_padding, max_new_tokens)) for key in prefix.cache.keys]
        self.values = [F.pad(value, (0, 0, left_padding, max_new_tokens)) for value in prefix.cache.values]
        self.start = left_padding + prefix.mask.shape[1]
        mask = F.pad(F.pad(prefix.mask, (left_padding, 0)), (0, max_new_tokens), value=True)[:, None, None, :]
        self.bias = torch.zeros(mask.shape, dtype=self.keys[0].dtype, device=mask.device).masked_fill(~mask, -torch.inf)
        self.padded = not bool(prefix.mask.all())
        cos, sin = model.rotary_emb(self.keys[0], prefix.positions(max_new_tokens))
        half = sin.shape[-1] // 2
        self.cos, self.sin = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        self.step = 0

    def __call__(self, embeds: Tensor) -> Tensor:
        """Hidden states (B, D) of the next tokens, given their embeddings (B, D)."""
        (cos, sin, bias), hidden = self._rotary_and_bias(), embeds
        for index, (layer, input_norm, post_attention_norm) in enumerate(self.layers):
            attention, normed = layer.self_attn, input_norm(hidden)
            query_key = torch.cat((attention.q_proj(normed), attention.k_proj(normed)), -1)
            query_key = query_key.view(len(embeds), self.heads + self.kv_heads, -1)
            query_key = torch.addcmul(query_key * cos, query_key.roll(query_key.shape[-1] // 2, -1), sin)
            value = attention.v_proj(normed).view(len(embeds), self.kv_heads, -1)
            output = F.scaled_dot_product_attention(
                query_key[:, : self.heads, None],
                self._append(self.keys[index], query_key[:, self.heads :]),
                self._append(self.values[index], value),
                bias,
                scale=attention.scaling,
                enable_gqa=self.heads != self.kv_heads,
            )
            hidden = hidden + attention.o_proj(output.reshape(len(embeds), -1))
            hidden = hidden + layer.mlp(post_attention_norm(hidden))
        self.step += 1
        return self.norm(hidden)

    def _rotary_and_bias(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cosine and sine of this position, (B, 1, head_dim) each, and the attention bias."""
        bias = self.bias[..., : self.start + self.step + 1] if self.padded else None
        return self.cos[:, self.step, None], self.sin[:, self.step, None], bias

    def _append(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Write keys or values (B, heads, head_dim) into their buffer; returns what attention reads."""
        position = self.start + self.step
        buffer[:, :, position] = new
        return buffer[:, :, : position + 1]


class LlamaStaticDecoder(LlamaDecoder):
    """The same with static shapes: a compiler or a CUDA graph sees the same step for every token.

    The position is a tensor, and attention reads the whole buffer under a mask. Prefixes are padded to a multiple of
    `PREFIX_MULTIPLE`.
    """

    def __init__(self, model: "LlamaModel", prefix: Prefix, max_new_tokens: int) -> None:
        super().__init__(model, prefix, max_new_tokens, -prefix.mask.shape[1] % PREFIX_MULTIPLE)
        device = self.bias.device
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.positions = torch.arange(self.start + max_new_tokens, device=device)

    def _rotary_and_bias(self) -> tuple[Tensor, Tensor, Tensor | None]:
        bias = self.bias.masked_fill(self.positions > self.start + self.step, -torch.inf)
        return self.cos.index_select(1, self.step), self.sin.index_select(1, self.step), bias

    def _append(self, buffer: Tensor, new: Tensor) -> Tensor:
        return buffer.index_copy_(2, self.start + self.step, new[:, :, None])


class _Norm:
    """RMS norm: PyTorch's fused one, or on a CPU, where that takes ten operations, an equal one of four."""

    def __init__(self, norm: "LlamaRMSNorm") -> None:
        self.weight, self.eps, width = norm.weight, norm.variance_epsilon, norm.weight.shape[0]
        self.on_cpu = self.weight.is_cpu and self.weight.dtype == torch.float32
        if self.on_cpu:
            self.weight, self.floor = self.weight * width**0.5, torch.tensor((self.eps * width) ** 0.5)

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self.on_cpu:
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / length.hypot_(self.floor) * self.weight
