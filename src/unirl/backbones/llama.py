"""Rows of transformers' Llama: many at once under any mask, and one new row at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from unirl.sampling.kv_cache import Prefix, PrefixCache, checkpointed, run_layers

WIDTH = 32
"""Prefixes are padded to a multiple of it where shapes are fixed, so that few shapes occur."""
CHUNK = 1024
"""Codes whose logits are held at a time."""


class LlamaRows(nn.Module, ABC):
    """A model around transformers' Llama, or one of the same modules, that draws codes from rows of it.

    Args:
        gradient_checkpointing: Keep little for the gradient, and compute it again.
    """

    def __init__(self, gradient_checkpointing: bool = True) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing

    @property
    @abstractmethod
    def language_model(self) -> Any:
        """What has `layers`, `norm` and `rotary_emb`."""

    @abstractmethod
    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        """Logits (B, ..., K) over the image codes; under guidance from 2 B rows, the second half with no prompt."""

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of the given rows.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B, S); returns (B, S, D).
        """
        model = self.language_model
        rows = {"attention_mask": mask, "position_embeddings": model.rotary_emb(embeds, positions)}
        return model.norm(run_layers(model.layers, embeds, cache, self.gradient_checkpointing, **rows))

    def checkpointed(self, part: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """What a part computes; for the gradient it computes it again, where `gradient_checkpointing` is set."""
        return checkpointed(part, *given, gradient_checkpointing=self.gradient_checkpointing)

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
        return torch.cat([self.checkpointed(part, *piece) for piece in pieces], 1)


class IncrementalDecoder:
    """The next row of each sequence, over keys and values in buffers that never grow.

    It computes what `LlamaModel.forward` does, from the same modules (adapters included), with half the operations:
    at one row a pass it is their number that costs, not their size. Queries and keys are turned together, and
    attention reads the rows that are there instead of the whole buffer. It serves one drawing: norms are read once.

    Args:
        model: transformers' `LlamaModel`.
        prefix: What comes first.
        room: How many rows may follow.
        before: Places that nobody sees, in front of the prefix.
    """

    row: int | Tensor

    def __init__(self, model: LlamaModel, prefix: Prefix, room: int, before: int = 0) -> None:
        layers: Any = model.layers
        self.layers = [(layer, _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)) for layer in layers]
        self.norm = _Norm(model.norm)
        self.heads, self.kv_heads = model.config.num_attention_heads, prefix.cache.keys[0].shape[1]
        self.keys = [F.pad(key, (0, 0, before, room)) for key in prefix.cache.keys]
        self.values = [F.pad(value, (0, 0, before, room)) for value in prefix.cache.values]
        self.start = before + prefix.keys.shape[1]
        seen = F.pad(F.pad(prefix.keys, (before, 0)), (0, room), value=True)[:, None, None, :]
        self.bias = torch.zeros(seen.shape, dtype=self.keys[0].dtype, device=seen.device).masked_fill(~seen, -torch.inf)
        self.padded = not bool(prefix.keys.all())
        cos, sin = model.rotary_emb(self.keys[0], prefix.positions(room))
        half = sin.shape[-1] // 2
        self.cos, self.sin = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        self.row = 0

    def __call__(self, embeds: Tensor) -> Tensor:
        """Hidden states (R, D) of rows (R, D); remembers them."""
        (cos, sin, bias), hidden = self._here(), embeds
        for index, (layer, before_attention, before_mlp) in enumerate(self.layers):
            attention, normed = layer.self_attn, before_attention(hidden)
            turned = torch.cat((attention.q_proj(normed), attention.k_proj(normed)), -1)
            turned = turned.view(len(embeds), self.heads + self.kv_heads, -1)
            turned = torch.addcmul(turned * cos, turned.roll(turned.shape[-1] // 2, -1), sin)
            value = attention.v_proj(normed).view(len(embeds), self.kv_heads, -1)
            seen = F.scaled_dot_product_attention(
                turned[:, : self.heads, None],
                self._remember(self.keys[index], turned[:, self.heads :]),
                self._remember(self.values[index], value),
                bias,
                scale=attention.scaling,
                enable_gqa=self.heads != self.kv_heads,
            )
            hidden = hidden + attention.o_proj(seen.reshape(len(embeds), -1))
            hidden = hidden + layer.mlp(before_mlp(hidden))
        self.row += 1
        return self.norm(hidden)

    def _here(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """How the row is turned, (R, 1, head_dim) each, and what it doesn't see."""
        bias = self.bias[..., : self.start + self.row + 1] if self.padded else None
        return self.cos[:, self.row, None], self.sin[:, self.row, None], bias

    def _remember(self, buffer: Tensor, new: Tensor) -> Tensor:
        """Put the row's keys or values (R, heads, head_dim) in their place; gives what attention reads."""
        place = self.start + self.row
        buffer[:, :, place] = new
        return buffer[:, :, : place + 1]


class StaticCacheDecoder(IncrementalDecoder):
    """The same with shapes that stay: a compiler or a CUDA graph sees the same pass at every row.

    The place to write is a tensor, and attention reads the whole buffer under a mask. Prefixes take one of few widths.
    """

    row: Tensor

    def __init__(self, model: LlamaModel, prefix: Prefix, room: int) -> None:
        super().__init__(model, prefix, room, -prefix.keys.shape[1] % WIDTH)
        device = self.bias.device
        self.row, self.places = torch.zeros(1, dtype=torch.long, device=device), torch.arange(self.start + room)
        self.places = self.places.to(device)

    def _here(self) -> tuple[Tensor, Tensor, Tensor | None]:
        bias = self.bias.masked_fill(self.places > self.start + self.row, -torch.inf)
        return self.cos.index_select(1, self.row), self.sin.index_select(1, self.row), bias

    def _remember(self, buffer: Tensor, new: Tensor) -> Tensor:
        return buffer.index_copy_(2, self.start + self.row, new[:, :, None])


class _Norm:
    """RMS norm in one operation; on a CPU, where PyTorch's own is made of ten, in four."""

    def __init__(self, norm: LlamaRMSNorm) -> None:
        self.weight, self.eps, width = norm.weight, norm.variance_epsilon, norm.weight.shape[0]
        self.plain = self.weight.is_cpu and self.weight.dtype == torch.float32
        if self.plain:
            self.weight, self.floor = self.weight * width**0.5, torch.tensor((self.eps * width) ** 0.5)

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self.plain:
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / length.hypot_(self.floor) * self.weight
