"""Mixins for authors of autoregressive backbones: images code by code, and answers in text.

A backbone that derives from both writes `build`, its token ids, `decode` and `encode`; everything else is here.
"""

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.backbones.plain_text import plain_text
from unirl.backbones.transformer import CausalTransformer
from unirl.errors import UserError
from unirl.functional.gumbel import straight_through
from unirl.sampling.autoregressive import sample_codes, sample_inverse_cdf, sample_uniforms
from unirl.sampling.cuda_graph import sample_codes_by_graphs
from unirl.sampling.kv_cache import IncrementalDecoder, Prefix, extend, pad_left, pad_right, prefill
from unirl.sampling.text import answer_log_probs, sample_answers
from unirl.types import Answers, AnswerSampling, Images, ImageSampling


class AutoregressiveImages(Backbone):
    """Image codes one after another: sampling with classifier-free guidance, scoring and straight-through codes.

    Each distinct prompt is prefilled once, whatever the group size. Scoring takes one pass over all codes. List it
    before `TextAnswers` in the base classes.

    Attributes:
        transformer: Computes embeddings, hidden states and logits.
        num_image_codes: N, the codes of an image.
        image_start_id: Id of the token that comes before the first code.
        codes_per_line: Codes of a line, where a token that is never sampled follows each line (Emu3); or None.
        end_of_line_id: Id of that token.
        compiled: Whether the sampling step goes through `torch.compile`. The transformer must then have a decoder of
            static shapes.
        cuda_graph: Whether the sampling step is captured as a CUDA graph, see `unirl.sampling.sample_codes_by_graphs`;
            None for wherever the weights are on a CUDA device. The transformer must then have a `LlamaStaticDecoder`,
            or another with its `limit_attention`.
    """

    transformer: CausalTransformer
    num_image_codes: int
    image_start_id: int
    codes_per_line: int | None = None
    end_of_line_id: int = 0
    compiled: bool = False
    cuda_graph: bool | None = False

    @abstractmethod
    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, at least one, up to but without `image_start_id`."""

    def unconditional_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        """Token ids that replace a prompt's in the unconditional half of guidance; by default the empty prompt's."""
        return self.prompt_ids([""])[0]

    @property
    @override
    def max_prompt_length(self) -> int | None:
        """What the transformer's longest sequence leaves beside an image."""
        longest = getattr(self.transformer, "max_position_embeddings", None)
        return None if longest is None else longest - self.num_image_codes - max(0, self._num_lines - 1)

    @override
    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.prompt_ids(prompts)]

    @property
    def num_image_tokens(self) -> int | None:
        """Embeddings of an image that is asked about, for `max_question_length`. Override it with `embed_images`."""
        return self.num_image_codes + self._num_lines

    @property
    def _num_lines(self) -> int:
        return 0 if self.codes_per_line is None else self.num_image_codes // self.codes_per_line

    @torch.no_grad()
    @override
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        uniforms = sample_uniforms(self.num_image_codes, len(prompts), generator, self.transformer.device)
        prefix = self.prompt_prefix(prompts, sampling.guidance)
        by_graphs = self._samples_by_graphs()
        step, start = SamplingStep(self, prefix, sampling, by_graphs), self._start(prefix)[:, 0]
        if by_graphs:
            sample = sample_codes_by_graphs(step, start, uniforms, self._on_capture_failure)
        else:
            sample = sample_codes(step, start, self.num_image_codes, uniforms)
        return Images(sample.codes, actions=sample.codes, log_probs=sample.log_probs)

    def _samples_by_graphs(self) -> bool:
        device = self.transformer.device.type
        if self.cuda_graph and device != "cuda":
            raise UserError(
                f"cuda_graph is true, but the model is on {device!r}: CUDA graphs need a CUDA device; leave cuda_graph "
                "out, which uses them where there is one"
            )
        return device == "cuda" if self.cuda_graph is None else self.cuda_graph

    def _on_capture_failure(self, error: RuntimeError) -> None:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if self.cuda_graph:
            raise UserError(
                f"no CUDA graph of the sampling step can be captured ({reason}); leave cuda_graph out, which then "
                "samples without one, or set it to false"
            ) from error
        warnings.warn(
            f"images are sampled without a CUDA graph, since none can be captured ({reason}); cuda_graph: false is the "
            "same without this warning",
            stacklevel=2,
        )

    @override
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden = self.code_hidden(self.prompt_prefix(prompts, sampling.guidance), images.codes)
        log_probs = self.transformer.code_log_probs(hidden, images.codes, sampling.guidance, sampling.temperature)
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    @override
    def straight_through(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        temperature: float = 1.0,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Images:
        first = max(0, self.num_image_codes - (steps or self.num_image_codes))
        hidden = self.code_hidden(self.prompt_prefix(prompts, sampling.guidance), images.codes)[:, first:]
        logits = self.transformer.code_logits(hidden, sampling.guidance).float() / (sampling.temperature or 1.0)
        soft = straight_through(logits, images.codes[:, first:], temperature, generator)
        hard = F.one_hot(images.codes[:, :first], soft.shape[-1]).to(soft.dtype)
        return dataclasses.replace(images, soft=torch.cat((hard, soft), 1), pixels=None)

    def embed_images(self, images: Images) -> Tensor:
        """Embeddings (B, n, D) of images that are asked about: their codes, with the tokens that end lines.

        Override it where questions are answered through another image encoder.
        """
        return self.embed_all_codes(images.codes if images.soft is None else images.soft)

    def embed_all_codes(self, codes: Tensor) -> Tensor:
        """Embeddings (B, n, D) of all codes (B, N) or soft codes (B, N, K), with the tokens that end lines."""
        embeds = self.transformer.embed_codes(codes)
        if self.codes_per_line is None:
            return embeds
        lines = embeds.unflatten(1, (-1, self.codes_per_line))
        ends = self.embed_token(self.end_of_line_id, 1).expand(*lines.shape[:2], 1, -1)
        return torch.cat((lines, ends), 2).flatten(1, 2)

    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Key-value cache of what comes before `image_start_id`, each distinct sequence of tokens computed once.

        Returns:
            B rows; with guidance 2 B, the second half without the prompts.
        """
        distinct = list(dict.fromkeys(prompts))
        cond = [tuple(ids) for ids in self.prompt_ids(distinct)]
        uncond = [tuple(self.unconditional_ids(ids)) for ids in cond] if guidance else []
        row_of = {ids: row for row, ids in enumerate(dict.fromkeys([*cond, *uncond]))}
        ids, mask = (part.to(self.transformer.device) for part in pad_left(list(row_of)))
        prefix = prefill(self.transformer, self.transformer.embed(ids), mask)
        index = {prompt: i for i, prompt in enumerate(distinct)}
        order = [cond[index[p]] for p in prompts] + [uncond[index[p]] for p in prompts if guidance]
        return prefix.select(torch.tensor([row_of[ids] for ids in order], device=ids.device))

    def code_hidden(self, prefix: Prefix, codes: Tensor) -> Tensor:
        """Hidden states that predict each code, in one pass over given codes; with gradient.

        Shapes:
            codes (B, N); returns (R, N, D) for the R rows of the prefix: B, or 2 B with guidance.
        """
        if self.codes_per_line is None:
            previous = self.transformer.embed_codes(codes[:, :-1])
        else:  # the last code and the end of its line predict no code
            previous = self.embed_all_codes(codes)[:, :-2]
        embeds = torch.cat((self._start(prefix), previous.repeat(len(prefix) // len(codes), 1, 1)), 1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=codes.device)
        hidden = extend(self.transformer, prefix, embeds, mask)
        if self.codes_per_line is None:
            return hidden
        code = torch.arange(codes.shape[1], device=codes.device)
        return hidden[:, code + code // self.codes_per_line]

    def _start(self, prefix: Prefix) -> Tensor:
        """Embeddings (R, 1, D) of the token before the first code."""
        return self.embed_token(self.image_start_id, len(prefix))[:, None]

    def embed_token(self, token_id: int, rows: int) -> Tensor:
        """Embeddings (rows, D) of one token."""
        return self.transformer.embed(torch.full((rows,), token_id, device=self.transformer.device))


class SamplingStep:
    """One code of each image: transformer, head, guidance, sampling and embedding; the step of `sample_codes`.

    A compiled step serves all later batches of as many rows, whatever the weights are by then: they are its inputs.

    Args:
        backbone: The model that generates.
        prefix: The prompts; with guidance followed by as many rows without them.
        sampling: Guidance and temperature.
        static_shapes: Whether every code has the same shapes, as `sample_codes_by_graphs` needs; so has a compiled one.
    """

    def __init__(
        self, backbone: AutoregressiveImages, prefix: Prefix, sampling: ImageSampling, static_shapes: bool = False
    ) -> None:
        self.transformer, self.sampling, self.num_sampled = backbone.transformer, sampling, 0
        self.codes_per_line, max_new_tokens = backbone.codes_per_line, backbone.num_image_codes
        if self.codes_per_line is not None:
            max_new_tokens += backbone.num_image_codes // self.codes_per_line
            self.end_of_line = backbone.embed_token(backbone.end_of_line_id, len(prefix))
        self.compiled, static_shapes = backbone.compiled, static_shapes or backbone.compiled
        self.decoder: Any = self.transformer.incremental_decoder(prefix, max_new_tokens, static_shapes)
        self.sample_next = _compiled_step() if backbone.compiled else _sample_next

    def __call__(self, embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next embeddings (R, D), codes (B,) and their log-probabilities (B,); embeds (R, D), uniforms (B,)."""
        if self.ends_line(self.num_sampled):
            embeds = self.end_line(embeds)
        self.num_sampled += 1
        return self.next_code(embeds, uniforms)

    def ends_line(self, index: int) -> bool:
        """Whether a line ends before a code."""
        return bool(self.codes_per_line and index and index % self.codes_per_line == 0)

    def end_line(self, embeds: Tensor) -> Tensor:
        """Embeddings (R, D) of the token that ends a line; the line's last code (R, D) is only read."""
        self.decoder(embeds)
        return self.end_of_line

    def next_code(self, embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As the call, but for a code that continues a line."""
        guidance, temperature = self.sampling.guidance, self.sampling.temperature
        return self.sample_next(self.transformer, self.decoder, embeds, uniforms, guidance, temperature)

    def limit_attention(self, token: int) -> int:
        """Choose how much of the buffers attention reads; a compiled step reads all, or it would be compiled anew."""
        return 0 if self.compiled else self.decoder.limit_attention(token)


def _sample_next(
    transformer: CausalTransformer,
    decoder: IncrementalDecoder,
    embeds: Tensor,
    uniforms: Tensor,
    guidance: float,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    logits = transformer.code_logits(decoder(embeds), guidance)
    code, log_prob = sample_inverse_cdf(logits, temperature, uniforms)
    following = transformer.embed_codes(code).to(embeds.dtype)  # autocast gives the first token another type
    return torch.cat((following, following)) if guidance else following, code, log_prob


@cache
def _compiled_step() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(_sample_next, dynamic=False)


class TextAnswers(Backbone):
    """Answers in text: sampling and scoring over key-value caches. Each image is prefilled once, for all its questions.

    Attributes:
        transformer: Has `embed`, `text_logits`, `device` and the call of `unirl.sampling.CachedTransformer`.
        tokenizer: Of transformers' kind. Only the defaults of `eos_token_ids`, `answer_ids` and `decode_text` use it.
    """

    transformer: Any
    tokenizer: Any

    @abstractmethod
    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each question, from the token that follows the image to the one that precedes the answer."""

    @abstractmethod
    def embed_images(self, images: Images) -> Tensor:
        """Embeddings (B, n, D) of images; gradient reaches soft codes. `AutoregressiveImages` has one over codes."""

    @property
    def image_context_ids(self) -> Sequence[int]:
        """Token ids that precede an image which is asked about, the same for all questions. By default none."""
        return ()

    @property
    def num_image_tokens(self) -> int | None:
        """Embeddings of an image that is asked about, where questions have a `max_question_length`; None if not."""
        return None

    @property
    @override
    def max_question_length(self) -> int | None:
        """What the transformer's longest sequence leaves after an image."""
        longest, image = getattr(self.transformer, "max_position_embeddings", None), self.num_image_tokens
        if longest is None or image is None:
            return None
        return longest - len(self.image_context_ids) - image + 1  # the last token of an answer is not read

    @override
    def question_lengths(self, questions: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.question_ids(questions)]

    @override
    def answer_lengths(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self._ended_answer_ids(texts)]

    @property
    @override
    def eos_token_ids(self) -> Sequence[int]:
        """Ids that end an answer; the first ends given answers. By default that of the tokenizer."""
        return (self.tokenizer.eos_token_id,)

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of given answers; the end of text may be missing. By default those of the text after a blank.

        A control token in a text is text: "<|endoftext|>" does not end it.
        """
        texts = [f" {plain_text(text.strip(), self.tokenizer)}" for text in texts]
        return [list(row) for row in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def decode_text(self, ids: Tensor) -> str:
        """The text of an answer's ids (T,), the end of text excluded."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def image_prefix(self, images: Images) -> Prefix:
        """Key-value cache of each image that is asked about: `image_context_ids`, then `embed_images`, causally."""
        embeds = self.embed_images(images)
        context = torch.tensor([list(self.image_context_ids)], dtype=torch.long, device=embeds.device)
        context = self.transformer.embed(context).expand(len(images), -1, -1)
        embeds = torch.cat((context, embeds.to(context.dtype)), 1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        return prefill(self.transformer, embeds, mask)

    @torch.no_grad()
    @override
    def sample_answers(
        self,
        images: Images,
        questions: Sequence[str],
        sampling: AnswerSampling,
        generator: torch.Generator | None = None,
    ) -> Answers:
        ends, rows = list(self.eos_token_ids), self.question_ids(questions)
        prefix = self.image_prefix(images).repeat_to(len(questions), grow=True)
        ids, mask, log_probs = sample_answers(self.transformer, prefix, rows, sampling, ends, generator)
        tokens, own = ids.cpu(), mask.cpu()  # all answers at once: each copy waits for the device
        own = own & ~torch.isin(tokens, torch.tensor(ends))
        texts = [self.decode_text(row[keep]) for row, keep in zip(tokens, own, strict=True)]
        return Answers(ids, mask, texts, log_probs)

    @override
    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        rows = self._ended_answer_ids(texts)
        ids, mask = (part.to(self.transformer.device) for part in pad_right(rows, self.eos_token_ids[0]))
        return Answers(ids, mask, list(texts))

    def _ended_answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        ends = self.eos_token_ids
        rows = [[*row, ends[0]] for row in self.answer_ids(texts)]
        return [row[: 1 + next(i for i, token in enumerate(row) if token in ends)] for row in rows]

    @override
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        rows = self.question_ids(questions)
        prefix = self.image_prefix(images).repeat_to(len(questions))
        return answer_log_probs(self.transformer, prefix, rows, answers.ids, answers.mask)
