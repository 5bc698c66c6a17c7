"""Fast incremental decoding by the layers of transformers' Llama."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unirl.sampling.kv_cache import IncrementalDecoder, Prefix

if TYPE_CHECKING:
    from transformers import LlamaModel
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

PREFIX_MULTIPLE = 32
"""Static shapes pad prefixes and buffers to a multiple of it: few shapes to compile, and CUDA's kernels ask for 16."""
SEGMENTS = 4
"""Lengths of attention of an image: with four of them attention reads 5/8 of the buffers on average instead of all."""


class LlamaDecoder(IncrementalDecoder):
    """One more token of each sequence at a time, by the layers of transformers' Llama.

    It computes what `LlamaModel.forward` does, from the same modules (adapters included), in half the operations: for
    one token their number limits the speed, not their size. Queries and keys are rotated together, attention reads
    the filled part of the buffers, and under autocast what several layers read is cast once for all of them. Use one
    for each batch, without gradient: it reads the norms' weights and the type of autocast once.

    Args:
        model: transformers' `LlamaModel`, or one of the same modules.
        prefix: What comes first.
        max_new_tokens: Most tokens that follow.
        left_padding: Masked positions in front of the prefix.
    """

    position: Any

    def __init__(self, model: "LlamaModel", prefix: Prefix, max_new_tokens: int, left_padding: int = 0) -> None:
        layers: Any = model.layers
        device = prefix.mask.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        self.layers: list[tuple[Any, _Norm, _Norm]] = [
            (layer, _Norm(layer.input_layernorm, dtype), _Norm(layer.post_attention_layernorm, dtype))
            for layer in layers
        ]
        self.norm = _Norm(model.norm)
        self.heads, self.kv_heads = model.config.num_attention_heads, prefix.cache.keys[0].shape[1]
        dtype = prefix.cache.values[0].dtype  # autocast leaves rotated keys in float32, and attention would cast them
        self.keys = [F.pad(key.to(dtype), (0, 0, left_padding, max_new_tokens)) for key in prefix.cache.keys]
        self.values = [F.pad(value, (0, 0, left_padding, max_new_tokens)) for value in prefix.cache.values]
        self.rotated = self.keys[0].new_empty(len(prefix), self.heads + self.kv_heads, self.keys[0].shape[-1])
        self.query = self.rotated[:, : self.heads, None]
        self.start = left_padding + prefix.mask.shape[1]
        mask = F.pad(F.pad(prefix.mask, (left_padding, 0)), (0, max_new_tokens), value=True)[:, None, None, :]
        self.bias = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask, -torch.inf)
        # Keys may be in 16 bit; queries and keys are rotated as the model does, in the type of its embeddings.
        cos, sin = model.rotary_emb(model.embed_tokens.weight, prefix.positions(max_new_tokens))
        half = sin.shape[-1] // 2
        self.cos, self.sin = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        self._begin(prefix)

    def _begin(self, prefix: Prefix) -> None:
        """What tells one decoder's steps from another's."""
        self.position, self.padded = self.start, not bool(prefix.mask.all())

    def __call__(self, embeds: Tensor) -> Tensor:
        """Hidden states (B, D) of the next tokens, given their embeddings (B, D)."""
        (cos, sin, bias), hidden = self._rotary_and_bias(), embeds
        for index, (layer, input_norm, post_attention_norm) in enumerate(self.layers):
            attention, normed = layer.self_attn, input_norm(hidden)
            query_key = torch.cat((attention.q_proj(normed), attention.k_proj(normed)), -1).view_as(self.rotated)
            rolled = query_key.roll(query_key.shape[-1] // 2, -1)
            torch.addcmul(query_key * cos, rolled, sin, out=self.rotated)  # casts where the types differ
            value = attention.v_proj(normed).view(len(embeds), self.kv_heads, -1)
            output = F.scaled_dot_product_attention(
                self.query,
                self._append(self.keys[index], self.rotated[:, self.heads :]),
                self._append(self.values[index], value),
                bias,
                scale=attention.scaling,
                enable_gqa=self.query.shape[1] != self.kv_heads,
            )
            hidden = hidden + attention.o_proj(output.reshape(len(embeds), -1))
            hidden = hidden + layer.mlp(post_attention_norm(hidden))
        self.position += 1
        return self.norm(hidden)

    def _rotary_and_bias(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cosine and sine of this position, (B, 1, head_dim) each, and the attention bias."""
        bias, step = self.bias[..., : self.position + 1] if self.padded else None, self.position - self.start
        return self.cos[:, step, None], self.sin[:, step, None], bias

    def _append(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Write keys or values (B, heads, head_dim) into their buffer; returns what attention reads."""
        buffer[:, :, self.position] = new
        return buffer[:, :, : self.position + 1]


class LlamaStaticDecoder(LlamaDecoder):
    """The same with static shapes: a compiler or a CUDA graph sees the same step for every token.

    The position is a tensor, and attention reads a fixed length of the buffers under a mask. Prefixes and buffers are
    padded to a multiple of `PREFIX_MULTIPLE`.
    """

    def __init__(self, model: "LlamaModel", prefix: Prefix, max_new_tokens: int) -> None:
        self.segment = _pad(-(-max_new_tokens // SEGMENTS))
        width = prefix.mask.shape[1]
        super().__init__(model, prefix, _pad(max_new_tokens), _pad(width) - width)

    @override
    def _begin(self, prefix: Prefix) -> None:
        device, self.length = self.bias.device, self.bias.shape[-1]
        # The queries of a key as rows of one head: under a mask, CUDA's fast kernels know no other grouped heads.
        self.query = self.rotated[:, : self.heads].unflatten(1, (self.kv_heads, -1))
        self.position = torch.full((1,), self.start, device=device)
        self.positions = torch.arange(self.length, device=device)

    def limit_attention(self, token: int) -> int:
        """Let attention read only what is filled at the end of a token's segment.

        Args:
            token: Index of a new token. The steps of later segments would miss keys.

        Returns:
            The length that attention reads: one of at most `SEGMENTS`.
        """
        end = self.start + (token // self.segment + 1) * self.segment
        self.length = min(end, self.bias.shape[-1])
        return self.length

    @override
    def _rotary_and_bias(self) -> tuple[Tensor, Tensor, Tensor | None]:
        later, step = self.positions[: self.length] > self.position, self.position - self.start
        bias = self.bias[..., : self.length].masked_fill(later, -torch.inf)
        return self.cos.index_select(1, step), self.sin.index_select(1, step), bias

    @override
    def _append(self, buffer: Tensor, new: Tensor) -> Tensor:
        return buffer.index_copy_(2, self.position, new[:, :, None])[:, :, : self.length]


def _pad(width: int) -> int:
    """The next multiple of `PREFIX_MULTIPLE`."""
    return width + -width % PREFIX_MULTIPLE


class _Norm:
    """RMS norm: PyTorch's fused one, or on a CPU, where that takes ten operations, an equal one of four.

    Args:
        norm: The module with the weight.
        dtype: Of the result; None for that of the hidden states.
    """

    def __init__(self, norm: "LlamaRMSNorm", dtype: torch.dtype | None = None) -> None:
        self.weight, self.eps, width = norm.weight, norm.variance_epsilon, norm.weight.shape[0]
        self.dtype, self.on_cpu = dtype, self.weight.is_cpu and self.weight.dtype == torch.float32
        if self.on_cpu:
            floor = torch.tensor((self.eps * width) ** 0.5, dtype=torch.float32)
            self.weight, self.floor = self.weight * width**0.5, floor

    def __call__(self, hidden: Tensor) -> Tensor:
        normed = self._normalize(hidden)
        return normed if self.dtype is None else normed.to(self.dtype)

    def _normalize(self, hidden: Tensor) -> Tensor:
        if not self.on_cpu:
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / length.hypot_(self.floor) * self.weight
