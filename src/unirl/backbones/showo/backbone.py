"""Show-o draws, and scores what it drew: masked decoding under cached prompts."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PhiForCausalLM, PreTrainedTokenizerBase
from transformers.models.phi.modeling_phi import PhiDecoderLayer

from unirl.backbones.base import Backbone
from unirl.backbones.checkpoints import locate
from unirl.backbones.showo import checkpoint as files
from unirl.backbones.showo.checkpoint import ShowoConfig
from unirl.backbones.showo.modeling import QUESTION, Transformer
from unirl.backbones.showo.tokenizer import Magvit
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.sampling.kv_cache import Prefix, pad_right
from unirl.sampling.masked import choose_steps, random_contexts, sample_masked
from unirl.sampling.packing import packed
from unirl.sampling.text import answer_log_probs, sample_answers
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class Drawing(Backbone):
    """The half of Show-o that draws."""

    config: ShowoConfig
    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase

    @property
    def supports_greedy_images(self) -> bool:
        return False  # all codes at once, and which of them stay is chance, too

    @property
    def straight_through_steps(self) -> int | None:
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

    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        (batch, length), device = images.codes.shape, self.transformer.device
        known, share = random_contexts(batch * num_masks, length, sampling.steps, generator, device)
        codes, masked = images.codes.repeat(num_masks, 1), ~known
        logits = self._context_logits(prompts, codes, known, sampling.guidance, masked.nonzero(as_tuple=True))
        log_probs = _log_probs(logits, sampling.temperature, codes[masked])
        log_probs = log_probs.new_zeros(known.shape).masked_scatter(masked, log_probs)
        weights = masked * (share / masked.sum(1) / num_masks)[:, None]
        return _side_by_side(log_probs, num_masks), _side_by_side(weights, num_masks)

    def straight_through(
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


def _side_by_side(num_masks: Tensor, count: int) -> Tensor:
    """The views of each picture in one row. (V x B, N) -> (B, V x N)"""
    return torch.cat(num_masks.chunk(count), dim=1)


class Answering(Backbone):
    """The answering methods of `Showo`, which draws with the same transformer."""

    transformer: Transformer
    tokenizer: PreTrainedTokenizerBase

    @torch.no_grad()
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        end = self.tokenizer.eos_token_id
        with packed(self.transformer):
            prefix, rows = self._picture_prefix(images, len(questions), grow=True), self._question_rows(questions)
            ids, mask, log_probs = sample_answers(self.transformer, prefix, rows, sampling, end, generator)
        texts = [self._text(row[keep]) for row, keep in zip(ids, mask, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        end = self.tokenizer.eos_token_id
        rows = [[*self.tokenizer(f" {t.strip()}", add_special_tokens=False)["input_ids"], end] for t in texts]
        ids, mask = (part.to(self.transformer.device) for part in pad_right(rows, end))
        return Answers(ids, mask, list(texts))

    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        prefix, rows = self._picture_prefix(images, len(questions)), self._question_rows(questions)
        return answer_log_probs(self.transformer, prefix, rows, answers.ids, answers.mask)

    def _question_rows(self, questions: Sequence[str]) -> list[list[int]]:
        texts = [QUESTION.format(question=question) for question in questions]
        return [
            [self.tokenizer.eos_token_id, *ids] for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        ]

    def _picture_prefix(self, images: Images, count: int, grow: bool = False) -> Prefix:
        """Each picture once, then as many rows as there are questions about it."""
        prefix = self.transformer.picture_prefix(images.codes if images.soft is None else images.soft)
        return prefix.shared(count, grow)

    def _text(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


class Showo(Drawing, Answering):
    """Show-o (arXiv 2408.12528) at any size, in the public checkpoints' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "showlab/show-o-512x512".
        image_tokenizer: Where the MAGVIT-v2 is, if not where the checkpoint says.
        llm_model_path: Where the text model's config and tokenizer are, if not where the checkpoint says.
        max_text_len: Longest prompt in tokens, if not as the checkpoint says (128).
        gradient_checkpointing: Keep little for the gradient, and compute it again: far less memory, a third more time.
    """

    image_tokenizer: Magvit

    def __init__(
        self,
        checkpoint: str,
        image_tokenizer: str | None = None,
        llm_model_path: str | None = None,
        max_text_len: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint, self.gradient_checkpointing = checkpoint, gradient_checkpointing
        given = {"image_tokenizer": image_tokenizer, "llm_model_path": llm_model_path, "max_text_len": max_text_len}
        self.overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            config = files.sizes(self.checkpoint, self.overrides)
            with torch.device("meta"):
                self._assemble(files.phi(config, config.llm), Magvit(config.magvit), config)
            return
        folder = locate(self.checkpoint)
        config = files.read_config(folder, self.overrides)
        magvit = files.load_image_tokenizer(locate(config.image_tokenizer, inside=folder), config.codebook_size)
        self.tokenizer = files.load_tokenizer(folder, config)
        self._assemble(files.load_text_model(folder, config), magvit, config)

    def _assemble(self, phi: PhiForCausalLM, magvit: Magvit, config: files.ShowoConfig) -> None:
        self.config = config
        self.transformer = Transformer(phi, config, self.gradient_checkpointing)
        self.image_tokenizer = magvit.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Showo":
        super().train(mode)
        if hasattr(self, "image_tokenizer"):
            self.image_tokenizer.eval()  # frozen in UniRL
        return self

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (PhiDecoderLayer,)

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        side = self.config.side
        if images.soft is not None:
            pixels = self.image_tokenizer.decode_soft(images.soft.view(len(images), side, side, -1))
        else:
            pixels = self.image_tokenizer.decode(images.codes.view(len(images), side, side))
        return ((pixels + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        size = self.config.side * self.image_tokenizer.config.stride
        if pixels.shape[1:] != (3, size, size):
            raise UserError(f"pictures of shape {tuple(pixels.shape[1:])}; this checkpoint sees (3, {size}, {size})")
        return Images(self.image_tokenizer.encode(pixels * 2 - 1).flatten(1), pixels=pixels)

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "Showo":
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        files.save(Path(path), self.config, self.transformer.phi, self.image_tokenizer, self.tokenizer)
