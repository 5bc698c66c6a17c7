"""Show-o as a transformer over cached prefixes: sequences, attention masks, hidden states and logits."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiForCausalLM

from unirl.backbones.precision import float32_logits
from unirl.backbones.showo.checkpoint import ShowoConfig
from unirl.sampling.kv_cache import Prefix, PrefixCache, causal_mask, pad_left, run_layers, suffix_mask


def prompt_row(text: Sequence[int], task: int, end: int, max_text_len: int) -> list[int]:
    """`[t2i, sot, text, eot]`; a long prompt is truncated and keeps its end of text.

    Args:
        text: Token ids of the prompt.
        task: Id of the task token.
        end: End-of-text id, which also begins the text.
        max_text_len: Most tokens without the task token.

    Example:
        >>> prompt_row([5, 6, 7], task=1, end=0, max_text_len=4)
        [1, 0, 5, 6, 0]
    """
    return [task, end, *text[: max_text_len - 2], end]


def generation_mask(ids: Tensor, pad: int, soi: int) -> Tensor:
    """The attention mask of a generation sequence: causal text, bidirectional image, padding masked.

    The model computes generation over a cached prompt; this is the mask of the whole sequence, as in the public code.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True where attention may.
    """
    mask = ids != pad
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == soi).cumsum(1).bool()
    visible = (lower | image[:, :, None]) & mask[:, None, :]
    return torch.where(mask[:, :, None], visible, lower & ~mask[:, None, :])[:, None]


def understanding_mask(ids: Tensor, eoi: int) -> Tensor:
    """The attention mask of an understanding sequence: causal, and all tokens attend to all up to the image's end.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True where attention may.
    """
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == eoi).flip(1).cumsum(1).flip(1).bool()
    return (lower | image[:, None, :])[:, None]


class ShowoTransformer(nn.Module):
    """Phi with Show-o's vocabulary; computes only the rows and head columns that are read.

    Args:
        phi: The model.
        config: Its vocabulary.
        gradient_checkpointing: Recompute layers in the backward pass to save memory.
    """

    def __init__(self, phi: PhiForCausalLM, config: ShowoConfig, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.phi, self.config, self.gradient_checkpointing = phi, config, gradient_checkpointing

    @property
    def device(self) -> torch.device:
        """Where the model computes. Weights may be elsewhere, such as shards on the CPU."""
        return next(chain(self.buffers(), self.parameters())).device

    @property
    def max_position_embeddings(self) -> int:
        """As for `CausalTransformer`."""
        return int(self.phi.config.max_position_embeddings)

    @property
    def float32_heads(self) -> Sequence[nn.Module]:
        """As for `CausalTransformer`."""
        return (self.phi.lm_head,)

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of new tokens.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B or 1, S); returns (B, S, D).
        """
        model: Any = self.phi.model
        kwargs = {"attention_mask": mask, "position_embeddings": model.rotary_emb(embeds, position_ids=positions)}
        hidden = run_layers(model.layers, model.embed_dropout(embeds), cache, self.gradient_checkpointing, **kwargs)
        return model.final_layernorm(hidden)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...)."""
        return self.phi.model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings (B, N, D) of integer codes (B, N) or soft codes (B, N, K)."""
        start, count = self.config.code_start, self.config.codebook_size
        if codes.is_floating_point():
            table = self.phi.model.embed_tokens.weight[start : start + count]
            return codes.to(table.dtype) @ table
        return self.embed(codes + start)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the whole vocabulary."""
        return float32_logits(self.phi.lm_head, hidden)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., K) over the image codes alone."""
        rows = slice(self.config.code_start, self.config.code_start + self.config.codebook_size)
        weight, bias = self.phi.lm_head.weight[rows], self.phi.lm_head.bias[rows]
        return float32_logits(partial(F.linear, weight=weight, bias=bias), hidden)

    def prompt_prefix(self, texts: Sequence[Sequence[int]], end: int) -> Prefix:
        """Key-value cache of prompts. The public left padding up to `max_text_len` shifts positions only.

        Args:
            texts: Token ids of each prompt.
            end: End-of-text id.
        """
        task, pad = self.config.special("t2i"), self.config.special("pad")
        rows = [prompt_row(text, task, end, self.config.max_text_len) for text in texts]
        length = self.config.max_text_len + 1
        ids, mask = (part.to(self.device) for part in pad_left(rows, pad))
        positions = torch.arange(length - ids.shape[1], length, device=self.device)[None]
        cache = PrefixCache(grow=True)
        self(self.embed(ids), causal_mask(mask), positions, cache)
        next_positions = torch.full((len(ids),), length, device=self.device)
        return Prefix(PrefixCache(cache.keys, cache.values), mask, next_positions)

    def image_hidden(self, prefix: Prefix, codes: Tensor, known: Tensor) -> Tensor:
        """Hidden states (B, N, D) of image codes after their prompts; codes that are not known are masked."""
        masked = torch.where(known, codes + self.config.code_start, self.config.mask_token_id)
        soi, eoi = (self._special(len(codes), (name,)) for name in ("soi", "eoi"))
        ids = torch.cat((soi, masked, eoi), dim=1)
        length = ids.shape[1]
        bidirectional = torch.ones(1, 1, length, length, dtype=torch.bool, device=ids.device)
        mask = suffix_mask(prefix.mask, bidirectional)
        return self(self.embed(ids), mask, prefix.positions(length), prefix.cache)[:, 1:-1]

    def image_prefix(self, image_embeds: Tensor) -> Prefix:
        """Key-value cache of images that are asked about, under bidirectional attention.

        Args:
            image_embeds: Embeddings of their codes.

        Shapes:
            image_embeds (B, N, D).
        """
        batch, length = len(image_embeds), image_embeds.shape[1] + 3
        before = self.embed(self._special(batch, ("mmu", "soi")))
        after = self.embed(self._special(batch, ("eoi",)))
        mask = torch.ones(batch, length, dtype=torch.bool, device=self.device)
        attention = mask[:, None, None, :].expand(-1, 1, length, -1)
        cache = PrefixCache(grow=True)
        embeds = torch.cat((before, image_embeds, after), dim=1)
        self(embeds, attention, torch.arange(length, device=self.device)[None], cache)
        return Prefix(PrefixCache(cache.keys, cache.values), mask, mask.sum(1))

    def _special(self, batch: int, names: Sequence[str]) -> Tensor:
        """Ids (batch, len(names)) of special tokens."""
        columns = [torch.full((batch, 1), self.config.special(name), device=self.device) for name in names]
        # Made of a list, it would be a copy to the device in each denoising step.
        return torch.cat(columns, 1) if len(columns) > 1 else columns[0]
