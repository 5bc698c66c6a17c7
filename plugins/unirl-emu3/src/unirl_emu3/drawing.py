"""Emu3 draws, and scores what it drew: one code after another, under guidance."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.backbones.autoregressive import AutoregressiveImages
from unirl.sampling.autoregressive import sample_codes, sample_uniforms
from unirl.sampling.kv_cache import Prefix, follow, pad_left, prefill
from unirl.sampling.packing import packed
from unirl.types import Images, ImageSampling
from unirl_emu3.chat import Chat
from unirl_emu3.layout import Layout
from unirl_emu3.step import Step
from unirl_emu3.transformer import Transformer


class Drawing(AutoregressiveImages):
    """The half of Emu3 that draws."""

    transformer: Transformer
    chat: Chat
    layout: Layout
    negative_prompt: str

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        uniforms = sample_uniforms(self.length, len(prompts), generator, self.transformer.device)
        with packed(self.transformer):
            prefix = self.prompt_prefix(prompts, sampling.guidance)
            step = Step(self.transformer, prefix, sampling)
            draw = sample_codes(step, self._begin(prefix)[:, 0], self.length, uniforms)
        return Images(draw.codes, actions=draw.codes, log_probs=draw.log_probs)

    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Each distinct prompt once, without the token that begins the codes; then as many rows as there are samples.

        Under guidance as many rows of the negative prompt follow, which is computed once.
        """
        texts = list(dict.fromkeys([*prompts, *([self.negative_prompt] if guidance else [])]))
        rows = [row[:-1] for row in self.chat.prompts(texts)]
        ids, keys = (part.to(self.transformer.device) for part in pad_left(rows, self.chat.pad))
        prefix = prefill(self.transformer, self.transformer.embed(ids), keys)
        wanted = [*prompts, *([self.negative_prompt] * len(prompts) if guidance else [])]
        return prefix.rows(torch.tensor([texts.index(text) for text in wanted], device=ids.device))

    def _begin(self, prefix: Prefix) -> Tensor:
        """The embedding that begins the codes of every picture. (R, 1, D)"""
        mark = torch.full((len(prefix.keys), 1), self.chat.begin_codes, device=prefix.keys.device)
        return self.transformer.embed(mark)

    def code_hidden(self, prefix: Prefix, codes: Tensor) -> Tensor:
        """Hidden states from which each code is drawn, in one pass over given codes; with gradient.

        Shapes:
            codes (B, N); returns (R, N, D) for the R rows of the prefix: B, or 2 B under guidance.
        """
        before = self.transformer.lines(codes)[:, :-2].repeat(len(prefix.keys) // len(codes), 1, 1)
        embeds = torch.cat((self._begin(prefix), before), 1)
        hidden = follow(self.transformer, prefix, embeds, torch.ones(embeds.shape[:2], device=codes.device).bool())
        return hidden[:, self.layout.places.to(codes.device)]
