"""Show-o's sequences and masks, as id tensors: pure functions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiForCausalLM

from unirl.backbones.showo.checkpoint import ShowoConfig
from unirl.sampling.kv_cache import Prefix, PrefixCache, causal_mask, pad_left, run_layers, suffix_mask

QUESTION = "USER: \n{question} ASSISTANT:"


def prompt_row(text: Sequence[int], task: int, end: int, longest: int) -> list[int]:
    """`[t2i, sot, text, eot]`; a long prompt is cut and keeps its end mark.

    Args:
        text: Token ids of the prompt.
        task: Id of the task token.
        end: End-of-text id, which also begins the text.
        longest: Most tokens without the task token.

    Example:
        >>> prompt_row([5, 6, 7], task=1, end=0, longest=4)
        [1, 0, 5, 6, 0]
    """
    return [task, end, *text[: longest - 2], end]


def generation_mask(ids: Tensor, pad: int, soi: int) -> Tensor:
    """The whole mask of a generation sequence: causal text, image in both directions, pads unseen but by pads.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True = may attend.
    """
    keys = ids != pad
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == soi).cumsum(1).bool()
    seen = (lower | image[:, :, None]) & keys[:, None, :]
    return torch.where(keys[:, :, None], seen, lower & ~keys[:, None, :])[:, None]


def understanding_mask(ids: Tensor, eoi: int) -> Tensor:
    """The whole mask of an understanding sequence: causal, and everybody sees all up to the end of the image.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True = may attend.
    """
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == eoi).flip(1).cumsum(1).flip(1).bool()
    return (lower | image[:, None, :])[:, None]


class Transformer(nn.Module):
    """Phi with Show-o's vocabulary; computes only rows and head columns that somebody reads.

    Args:
        phi: The model.
        config: Its vocabulary.
        gradient_checkpointing: Keep little for the gradient, and compute it again.
    """

    def __init__(self, phi: PhiForCausalLM, config: ShowoConfig, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.phi, self.config, self.gradient_checkpointing = phi, config, gradient_checkpointing

    @property
    def device(self) -> torch.device:
        return self.phi.lm_head.weight.device

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of the given rows.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B or 1, S); returns (B, S, D).
        """
        model: Any = self.phi.model
        rows = {"attention_mask": mask, "position_embeddings": model.rotary_emb(embeds, position_ids=positions)}
        hidden = run_layers(model.layers, model.embed_dropout(embeds), cache, self.gradient_checkpointing, **rows)
        return model.final_layernorm(hidden)

    def embed(self, ids: Tensor) -> Tensor:
        return self.phi.model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings of integer codes (B, N), or of mixtures of codes (B, N, K)."""
        start, count = self.config.code_start, self.config.codebook_size
        if codes.is_floating_point():
            table = self.phi.model.embed_tokens.weight[start : start + count]
            return codes.to(table.dtype) @ table
        return self.embed(codes + start)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the whole vocabulary. (..., V)"""
        return self.phi.lm_head(hidden)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Logits over the image codes alone. (..., K)"""
        rows = slice(self.config.code_start, self.config.code_start + self.config.codebook_size)
        return F.linear(hidden, self.phi.lm_head.weight[rows], self.phi.lm_head.bias[rows])

    def prompt_prefix(self, texts: Sequence[Sequence[int]], end: int) -> Prefix:
        """Keys and values of prompts, given as token ids. Left pads beyond the longest prompt are never computed.

        Args:
            texts: One row per prompt.
            end: End-of-text id.
        """
        task, pad = self.config.special("t2i"), self.config.special("pad")
        rows, last = [prompt_row(t, task, end, self.config.max_text_len) for t in texts], self.config.max_text_len + 1
        ids, keys = (part.to(self.device) for part in pad_left(rows, pad))
        positions = torch.arange(last - ids.shape[1], last, device=self.device)[None]
        cache = PrefixCache(grow=True)
        self(self.embed(ids), causal_mask(keys), positions, cache)
        return Prefix(PrefixCache(cache.keys, cache.values), keys, keys.new_full((len(ids),), last, dtype=torch.long))

    def image_hidden(self, prefix: Prefix, codes: Tensor, known: Tensor) -> Tensor:
        """Hidden states (B, N, D) of the image codes under their prompts; codes that are not known are masked."""
        masked = torch.where(known, codes + self.config.code_start, self.config.mask_token_id)
        ids = self._wrap(masked, ("soi",), ("eoi",))
        length = ids.shape[1]
        both = torch.ones(1, 1, length, length, dtype=torch.bool, device=ids.device)
        mask = suffix_mask(prefix.keys, both)
        return self(self.embed(ids), mask, prefix.positions(length), prefix.cache)[:, 1:-1]

    def picture_prefix(self, codes: Tensor) -> Prefix:
        """Keys and values of pictures to be asked about: integer codes (B, N) or mixtures (B, N, K)."""
        batch, length = codes.shape[0], codes.shape[1] + 3
        begin = self.embed(self._special(batch, ("mmu", "soi")))
        close = self.embed(self._special(batch, ("eoi",)))
        keys = torch.ones(batch, length, dtype=torch.bool, device=codes.device)
        mask = keys[:, None, None, :].expand(-1, 1, length, -1)
        cache = PrefixCache(grow=True)
        embeds = torch.cat((begin, self.embed_codes(codes), close), dim=1)
        self(embeds, mask, torch.arange(length, device=codes.device)[None], cache)
        return Prefix(PrefixCache(cache.keys, cache.values), keys, keys.sum(1))

    def _special(self, batch: int, names: Sequence[str]) -> Tensor:
        return torch.tensor([[self.config.special(n) for n in names]], device=self.device).expand(batch, -1)

    def _wrap(self, ids: Tensor, before: Sequence[str], after: Sequence[str]) -> Tensor:
        return torch.cat((self._special(len(ids), before), ids, self._special(len(ids), after)), dim=1)
