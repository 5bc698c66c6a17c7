"""Show-o's transformer: text and image rows over cached prefixes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiForCausalLM

from unirl.backbones.showo.config import ShowoConfig
from unirl.backbones.showo.sequences import causal_mask, pad_left, pad_right, prompt_row, suffix_mask
from unirl.decoding.cache import PrefixCache


@dataclass(frozen=True)
class Prefix:
    """The beginning of some sequences, computed once.

    Args:
        cache: Its keys and values.
        keys: True where a later row may see it.
        end: Position of the first row after it.

    Shapes:
        keys (B, P) bool.
    """

    cache: PrefixCache
    keys: Tensor
    end: int

    def rows(self, index: Tensor, grow: bool = False) -> "Prefix":
        """The prefixes named by `index`, one for each of its entries."""
        return Prefix(self.cache.rows(index, grow), self.keys[index], self.end)


class Transformer(nn.Module):
    """Phi with Show-o's vocabulary; computes only rows and head columns that somebody reads."""

    def __init__(self, phi: PhiForCausalLM, config: ShowoConfig) -> None:
        super().__init__()
        self.phi, self.config = phi, config

    @property
    def device(self) -> torch.device:
        return self.phi.lm_head.weight.device

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of the given rows.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B or 1, S); returns (B, S, D).
        """
        out = self.phi.model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state

    def embed(self, ids: Tensor) -> Tensor:
        return self.phi.model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings of integer codes (B, N), or of mixtures of codes (B, N, K)."""
        start, count = self.config.code_start, self.config.codebook_size
        if codes.is_floating_point():
            return codes @ self.phi.model.embed_tokens.weight[start : start + count]
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
        ids = pad_left([prompt_row(t, task, end, self.config.max_text_len) for t in texts], pad).to(self.device)
        keys, last = ids != pad, self.config.max_text_len + 1
        positions = torch.arange(last - ids.shape[1], last, device=self.device)[None]
        cache = PrefixCache(grow=True)
        self(self.embed(ids), causal_mask(keys), positions, cache)
        return Prefix(PrefixCache(cache.keys, cache.values), keys, last)

    def image_hidden(self, prefix: Prefix, codes: Tensor, known: Tensor) -> Tensor:
        """Hidden states (B, N, D) of the image codes under their prompts; codes that are not known are masked."""
        masked = torch.where(known, codes + self.config.code_start, self.config.mask_token_id)
        ids = self._wrap(masked, ("soi",), ("eoi",))
        length = ids.shape[1]
        both = torch.ones(1, 1, length, length, dtype=torch.bool, device=ids.device)
        positions = torch.arange(prefix.end, prefix.end + length, device=ids.device)[None]
        return self(self.embed(ids), suffix_mask(prefix.keys, both), positions, prefix.cache)[:, 1:-1]

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
        return Prefix(PrefixCache(cache.keys, cache.values), keys, length)

    def text_hidden(self, prefix: Prefix, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Hidden states of texts after their pictures, right-padded, and which rows are real.

        Shapes:
            returns (B, S, D) and (B, S) bool.
        """
        pad = self.config.special("pad")
        ids = pad_right(rows, pad).to(self.device)
        keys = pad_right([[1] * len(row) for row in rows], 0).to(self.device).bool()
        positions = torch.arange(prefix.end, prefix.end + ids.shape[1], device=self.device)[None]
        return self(self.embed(ids), suffix_mask(prefix.keys, causal_mask(keys)), positions, prefix.cache), keys

    def _special(self, batch: int, names: Sequence[str]) -> Tensor:
        return torch.tensor([[self.config.special(n) for n in names]], device=self.device).expand(batch, -1)

    def _wrap(self, ids: Tensor, before: Sequence[str], after: Sequence[str]) -> Tensor:
        return torch.cat((self._special(len(ids), before), ids, self._special(len(ids), after)), dim=1)
