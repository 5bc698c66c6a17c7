"""Show-o draws, and scores what it drew: masked decoding under cached prompts."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unirl.backbones.base import Backbone
from unirl.backbones.showo.config import ShowoConfig
from unirl.backbones.showo.transformer import Transformer
from unirl.decoding.masked import choose_steps, random_contexts, sample_masked
from unirl.decoding.packing import packed
from unirl.decoding.prefix import Prefix
from unirl.functional.relaxation import straight_through
from unirl.types import Images, ImageSampling


class Drawing(Backbone):
    """The half of Show-o that draws."""

    config: ShowoConfig
    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase

    @property
    def draws_greedily(self) -> bool:
        return False  # all codes at once, and which of them stay is chance, too

    @property
    def relaxed_steps(self) -> int | None:
        return 2  # each is a pass of its own

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        blank = torch.zeros(len(prompts), self.config.num_vq_tokens, dtype=torch.long, device=self.transformer.device)
        with packed(self.transformer):
            prefix = self._prompt_prefix(prompts, sampling.guidance)
            draw = sample_masked(self._guided_logits(prefix, sampling.guidance), blank, sampling, generator)
        steps = {"steps": draw.steps}
        return Images(draw.codes, actions=draw.codes, log_probs=draw.log_probs, memory=steps)

    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        chosen = choose_steps(images.codes.shape[1], sampling.steps, scored, generator, self.transformer.device)
        logits, where = self._decision_logits(prompts, images, chosen, sampling.guidance)
        log_probs = _log_probs(logits, sampling.temperature, images.codes[where])
        return log_probs.new_zeros(where.shape).masked_scatter(where, log_probs), where

    def picture_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        views: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        (batch, length), device = images.codes.shape, self.transformer.device
        known, share = random_contexts(batch * views, length, sampling.steps, generator, device)
        codes, masked = images.codes.repeat(views, 1), ~known
        logits = self._context_logits(prompts, codes, known, sampling.guidance, masked.nonzero(as_tuple=True))
        log_probs = _log_probs(logits, sampling.temperature, codes[masked])
        log_probs = log_probs.new_zeros(known.shape).masked_scatter(masked, log_probs)
        weights = masked * (share / masked.sum(1) / views)[:, None]
        return _side_by_side(log_probs, views), _side_by_side(weights, views)

    def relax(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        first = max(1, sampling.steps - (steps or sampling.steps) + 1)
        chosen = torch.arange(first, sampling.steps + 1, device=self.transformer.device)
        logits, where = self._decision_logits(prompts, images, chosen, sampling.guidance)
        relaxed = straight_through(logits.float() / sampling.temperature, images.codes[where], temperature, generator)
        hard = F.one_hot(images.codes, self.config.codebook_size).to(relaxed.dtype)
        return dataclasses.replace(images, soft=hard.masked_scatter(where.unsqueeze(-1), relaxed))

    def _prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Each distinct prompt once, then as many rows as there are samples; the unguided ones follow."""
        different = list(dict.fromkeys(prompts))
        texts = self.tokenizer([*different, ""] if guidance else different, add_special_tokens=False)["input_ids"]
        index = [different.index(prompt) for prompt in prompts] + [len(different)] * (len(prompts) if guidance else 0)
        prefix = self.transformer.prompt_prefix(texts, self.tokenizer.eos_token_id)
        return prefix.rows(torch.tensor(index, device=self.transformer.device))

    def _guided_logits(self, prefix: Prefix, guidance: float) -> Callable[[Tensor, Tensor], Tensor]:
        def logits(codes: Tensor, known: Tensor) -> Tensor:
            if not guidance:
                return self.transformer.code_logits(self.transformer.image_hidden(prefix, codes, known))
            twice = self.transformer.image_hidden(prefix, codes.repeat(2, 1), known.repeat(2, 1))
            return self.transformer.code_logits(_guide(twice, guidance))

        return logits

    def _decision_logits(
        self, prompts: Sequence[str], images: Images, chosen: Tensor, guidance: float
    ) -> tuple[Tensor, Tensor]:
        """Logits (M, K) of the codes fixed in the chosen steps, each in its own step's context, and where (B, N)."""
        steps, batch = images.memory["steps"], len(images)
        where = torch.isin(steps, chosen)
        known = (steps[None] < chosen[:, None, None]).flatten(0, 1)  # (steps x B, N)
        row, column = where.nonzero(as_tuple=True)
        context = torch.searchsorted(chosen, steps[row, column]) * batch + row
        codes = images.codes.repeat(len(chosen), 1)
        return self._context_logits(prompts, codes, known, guidance, (context, column)), where

    def _context_logits(
        self, prompts: Sequence[str], codes: Tensor, known: Tensor, guidance: float, at: tuple[Tensor, ...]
    ) -> Tensor:
        """Logits (M, K) at some places (context, code) of V contexts of each of B pictures.

        Shapes:
            codes and known (V x B, N).
        """
        batch = len(prompts)
        rows = torch.arange(batch, device=codes.device).repeat(len(codes) // batch)
        prefix = self._prompt_prefix(prompts, guidance)
        if not guidance:
            return self.transformer.code_logits(self.transformer.image_hidden(prefix.rows(rows), codes, known)[at])
        prefix = prefix.rows(torch.cat((rows, rows + batch)))
        cond, uncond = self.transformer.image_hidden(prefix, codes.repeat(2, 1), known.repeat(2, 1)).chunk(2)
        return self.transformer.code_logits(_guide(torch.cat((cond[at], uncond[at])), guidance))


def _guide(hidden: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, `(1 + w) * cond - w * uncond`; the first half of the rows is conditional.

    Guiding hidden states guides the logits: the head is affine and the two weights add up to 1. It costs half as much.
    """
    cond, uncond = hidden.float().chunk(2)
    return ((1 + guidance) * cond - guidance * uncond).to(hidden.dtype)


def _log_probs(logits: Tensor, temperature: float, codes: Tensor) -> Tensor:
    """Log-probability of each code under its own logits. (M, K), (M,) -> (M,)"""
    return (logits.float() / temperature).log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)


def _side_by_side(views: Tensor, count: int) -> Tensor:
    """The views of each picture in one row. (V x B, N) -> (B, V x N)"""
    return torch.cat(views.chunk(count), dim=1)
