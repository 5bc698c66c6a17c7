"""One new row at a time through transformers' Llama: what drawing code after code spends its time on."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from unirl.decoding.prefix import Prefix


class NextRow:
    """The next row of each sequence, over keys and values in buffers that never grow.

    It computes what `LlamaModel.forward` does, from the same modules (adapters included), with half the operations:
    at one row a pass it is their number that costs, not their size. Queries and keys are turned together, and
    attention reads the rows that are there instead of the whole buffer.

    Args:
        model: transformers' `LlamaModel`.
        prefix: What comes first.
        room: How many rows may follow.
    """

    def __init__(self, model: LlamaModel, prefix: Prefix, room: int) -> None:
        layers: Any = model.layers
        self.layers: list[LlamaDecoderLayer] = list(layers)
        self.norm: LlamaRMSNorm = model.norm
        self.heads, self.kv_heads = model.config.num_attention_heads, prefix.cache.keys[0].shape[1]
        self.keys = [F.pad(key, (0, 0, 0, room)) for key in prefix.cache.keys]
        self.values = [F.pad(value, (0, 0, 0, room)) for value in prefix.cache.values]
        self.start = prefix.keys.shape[1]
        seen = F.pad(prefix.keys, (0, room), value=True)[:, None, None, :]
        self.padded = not bool(prefix.keys.all())
        self.bias = torch.zeros(seen.shape, dtype=self.keys[0].dtype, device=seen.device).masked_fill(~seen, -torch.inf)
        cos, sin = model.rotary_emb(self.keys[0], prefix.positions(room))
        half = sin.shape[-1] // 2
        self.cos, self.sin = cos, torch.cat((-sin[..., :half], sin[..., half:]), -1)
        self.row = 0

    def __call__(self, embeds: Tensor) -> Tensor:
        """Hidden states (R, D) of rows (R, D); remembers them."""
        place, hidden = self.start + self.row, embeds
        cos, sin = self.cos[:, self.row, None], self.sin[:, self.row, None]
        bias = self.bias[..., : place + 1] if self.padded else None
        for index, layer in enumerate(self.layers):
            attention = layer.self_attn
            normed = _norm(layer.input_layernorm, hidden)
            turned = torch.cat((attention.q_proj(normed), attention.k_proj(normed)), -1)
            turned = turned.view(len(embeds), self.heads + self.kv_heads, -1)
            turned = torch.addcmul(turned * cos, turned.roll(turned.shape[-1] // 2, -1), sin)
            keys, values = self.keys[index], self.values[index]
            keys[:, :, place] = turned[:, self.heads :]
            values[:, :, place] = attention.v_proj(normed).view(len(embeds), self.kv_heads, -1)
            seen = F.scaled_dot_product_attention(
                turned[:, : self.heads, None],
                keys[:, :, : place + 1],
                values[:, :, : place + 1],
                bias,
                scale=attention.scaling,
                enable_gqa=self.heads != self.kv_heads,
            )
            hidden = hidden + attention.o_proj(seen.reshape(len(embeds), -1))
            normed, mlp = _norm(layer.post_attention_layernorm, hidden), layer.mlp
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        self.row += 1
        return _norm(self.norm, hidden)


def _norm(norm: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    """RMS norm in one operation."""
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)
