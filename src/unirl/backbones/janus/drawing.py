"""Janus draws, and scores what it drew: one code after another, under guidance."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.backbones.autoregressive import CodeByCode
from unirl.backbones.janus.chat import Chat
from unirl.backbones.janus.step import Step
from unirl.backbones.janus.transformer import Transformer
from unirl.decoding.autoregressive import sample_codes, uniform
from unirl.decoding.packing import packed
from unirl.decoding.prefix import Prefix, follow, pad_left, prefill
from unirl.types import Images, ImageSampling


class Drawing(CodeByCode):
    """The half of Janus that draws."""

    transformer: Transformer
    chat: Chat
    compiled: bool

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        chance = uniform(self.length, len(prompts), generator, self.transformer.device)
        with packed(self.transformer, wanted=not self.compiled):
            prefix = self.prompt_prefix(prompts, sampling.guidance)
            step = Step(self.transformer, prefix, sampling, self.length, self.compiled)
            draw = sample_codes(step, self._begin(prefix)[:, 0], self.length, chance)
        return Images(draw.codes, actions=draw.codes, log_probs=draw.log_probs)

    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Each distinct prompt once, without the mark that begins the picture; then as many rows as there are samples.

        The rows without a prompt follow. They know how long it was, so there is one for each distinct length.
        """
        different = list(dict.fromkeys(prompts))
        rows = [tuple(row[:-1]) for row in self.chat.prompts(different)]
        unguided = [tuple(self.chat.nothing(row)) for row in rows] if guidance else []
        places = {row: i for i, row in enumerate(dict.fromkeys([*rows, *unguided]))}
        ids, keys = (part.to(self.transformer.device) for part in pad_left(list(places), self.chat.pad))
        prefix = prefill(self.transformer, self.transformer.embed(ids), keys)
        which = {prompt: i for i, prompt in enumerate(different)}
        order = [rows[which[p]] for p in prompts] + [unguided[which[p]] for p in prompts if guidance]
        return prefix.rows(torch.tensor([places[row] for row in order], device=ids.device))

    def _begin(self, prefix: Prefix) -> Tensor:
        """The embedding that begins every picture. (R, 1, D)"""
        mark = torch.full((len(prefix.keys), 1), self.chat.begin_image, device=prefix.keys.device)
        return self.transformer.embed(mark)

    def code_hidden(self, prefix: Prefix, codes: Tensor) -> Tensor:
        """Hidden states from which each code is drawn, in one pass over given codes; with gradient.

        Shapes:
            codes (B, N); returns (R, N, D) for the R rows of the prefix: B, or 2 B under guidance.
        """
        before = self.transformer.embed_codes(codes[:, :-1]).repeat(len(prefix.keys) // len(codes), 1, 1)
        embeds = torch.cat((self._begin(prefix), before), 1)
        return follow(self.transformer, prefix, embeds, torch.ones(embeds.shape[:2], device=codes.device).bool())
