"""Show-o as a backbone: masked decoding of image codes over cached prompts."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import PhiForCausalLM, PreTrainedTokenizerBase
from transformers.models.phi.modeling_phi import PhiDecoderLayer
from typing_extensions import override

from unirl.backbones.checkpoints import PretrainedModel, building_on_cpu, locate
from unirl.backbones.mixins import TextAnswers
from unirl.backbones.plain_text import plain_text
from unirl.backbones.sampling_config import SamplingConfig
from unirl.backbones.showo import checkpoint as files
from unirl.backbones.showo.checkpoint import ShowoConfig
from unirl.backbones.showo.modeling import ShowoTransformer
from unirl.backbones.showo.tokenizer import Magvit
from unirl.errors import UserError, check_minimum
from unirl.functional.gumbel import straight_through
from unirl.sampling.kv_cache import Prefix
from unirl.sampling.masked import choose_steps, random_contexts, sample_masked
from unirl.types import Images, ImageSampling

QUESTION = "USER: \n{question} ASSISTANT:"
MAX_ASPECT = 32
"""Of a longer image the middle is taken before it is resized."""


class Showo(TextAnswers):
    """Show-o (arXiv 2408.12528) of any size, in the public checkpoints' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "showlab/show-o-512x512".
        image_tokenizer: Folder or hub id of the MAGVIT-v2. Defaults to that in the checkpoint's config.
        llm_model_path: Folder or hub id of the text model's config and tokenizer. Defaults to that in the checkpoint's
            config.
        max_text_len: Longest prompt in tokens, begin and end of text included, at least 3; the rest of a longer one is
            cut off. Defaults to that in the checkpoint's config, or else to 128.
        gradient_checkpointing: Recompute layers in the backward pass: much less memory, a third more time.
        resolution: Pixels of a side of an image. Defaults to what the `num_vq_tokens` in the checkpoint's config makes;
            needed where the checkpoint's name says another one.
    """

    model_types = ("Showo",)
    truncates_prompts = True
    config: ShowoConfig
    transformer: ShowoTransformer
    tokenizer: PreTrainedTokenizerBase
    image_tokenizer: Magvit

    def __init__(
        self,
        checkpoint: str,
        image_tokenizer: str | None = None,
        llm_model_path: str | None = None,
        max_text_len: int | None = None,
        gradient_checkpointing: bool = False,
        resolution: int | None = None,
    ) -> None:
        super().__init__()
        if max_text_len is not None:
            check_minimum(files.MIN_TEXT_LEN, "Show-o", max_text_len=max_text_len)
        if resolution is not None:
            check_minimum(1, "Show-o", resolution=resolution)
        self.checkpoint, self.gradient_checkpointing = checkpoint, gradient_checkpointing
        self.resolution = resolution
        options = {"image_tokenizer": image_tokenizer, "llm_model_path": llm_model_path, "max_text_len": max_text_len}
        self.overrides: dict[str, Any] = {name: value for name, value in options.items() if value is not None}

    @override
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            config, self.tokenizer = files.meta_config(self.checkpoint, self.overrides, self.resolution)
            text_model = files.build_text_model_on_meta(config, config.llm, self.checkpoint)
            with torch.device("meta"):
                self._assemble(text_model, Magvit(config.magvit), config)
            return
        with building_on_cpu():
            self._load()

    def _load(self) -> None:
        config = files.read_config(locate(self.checkpoint, files=["config.json"]), self.overrides)
        folder = locate(self.checkpoint, parts=files.parts(config))
        magvit = files.load_image_tokenizer(locate(config.image_tokenizer, inside=folder), config.codebook_size)
        config = files.with_resolution(config, self.checkpoint, self.resolution, magvit.config.stride)
        self.tokenizer = files.load_tokenizer(folder, config)
        self._assemble(files.load_text_model(folder, config), magvit, config)

    def _assemble(self, phi: PhiForCausalLM, magvit: Magvit, config: ShowoConfig) -> None:
        self.config = config
        self.transformer = ShowoTransformer(phi, config, self.gradient_checkpointing)
        self.image_tokenizer = magvit.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Showo":
        """Set training mode; the image tokenizer is frozen and stays in evaluation mode."""
        super().train(mode)
        if hasattr(self, "image_tokenizer"):
            self.image_tokenizer.eval()
        return self

    @property
    @override
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (PhiDecoderLayer,)

    # --- generation ---

    @property
    @override
    def default_sampling_config(self) -> SamplingConfig:
        """That of the authors, for a checkpoint of the public sizes."""
        return files.PUBLIC_SAMPLING.get((self.config.vocab_size, self.config.num_vq_tokens), SamplingConfig())

    @property
    @override
    def supports_greedy_images(self) -> bool:
        return False  # the order in which codes are unmasked is random, too

    @property
    @override
    def straight_through_steps(self) -> int | None:
        return 2  # each step is one more forward pass

    @torch.no_grad()
    @override
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        blank = torch.zeros(len(prompts), self.config.num_vq_tokens, dtype=torch.long, device=self.transformer.device)
        prefix = self.prompt_prefix(prompts, sampling.guidance)
        sample = sample_masked(self._guided_logits(prefix, sampling.guidance), blank, sampling, generator)
        memory = {"steps": sample.steps}
        return Images(sample.codes, actions=sample.codes, log_probs=sample.log_probs, memory=memory)

    @override
    def image_log_probs(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        scored_steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        steps = choose_steps(images.codes.shape[1], sampling.steps, scored_steps, generator, self.transformer.device)
        logits, scored = self._decision_logits(prompts, images, steps, sampling.guidance)
        log_probs = _log_probs(logits, sampling.temperature, images.codes[scored])
        return log_probs.new_zeros(scored.shape).masked_scatter(scored, log_probs), scored

    @override
    def image_log_likelihood(
        self,
        prompts: Sequence[str],
        images: Images,
        sampling: ImageSampling,
        num_masks: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        (batch, length), device = images.codes.shape, self.transformer.device
        known, share = random_contexts(batch * num_masks, length, sampling.steps, generator, device, num_masks)
        codes, masked = images.codes.repeat(num_masks, 1), ~known
        logits = self._context_logits(prompts, codes, known, sampling.guidance, masked.nonzero(as_tuple=True))
        log_probs = _log_probs(logits, sampling.temperature, codes[masked])
        log_probs = log_probs.new_zeros(known.shape).masked_scatter(masked, log_probs)
        weights = masked * (share / masked.sum(1) / num_masks)[:, None]
        return _concat_masks(log_probs, num_masks), _concat_masks(weights, num_masks)

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
        first = max(1, sampling.steps - (steps or sampling.steps) + 1)
        last_steps = torch.arange(first, sampling.steps + 1, device=self.transformer.device)
        logits, where = self._decision_logits(prompts, images, last_steps, sampling.guidance)
        logits = (logits.float() / sampling.temperature).unflatten(0, (len(images), -1))  # all images alike
        codes = images.codes[where].view(logits.shape[:-1])
        soft = straight_through(logits, codes, temperature, generator)
        hard = F.one_hot(images.codes, self.config.codebook_size).to(soft.dtype)
        return dataclasses.replace(images, soft=hard.masked_scatter(where.unsqueeze(-1), soft))

    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Key-value cache of the prompts, each distinct one computed once.

        Returns:
            B rows; with guidance 2 B, the second half those of the empty prompt.
        """
        distinct = list(dict.fromkeys(prompts))
        texts = self._tokenize([*distinct, ""] if guidance else distinct)
        index = [distinct.index(prompt) for prompt in prompts] + [len(distinct)] * (len(prompts) if guidance else 0)
        prefix = self.transformer.prompt_prefix(texts, self.tokenizer.eos_token_id)
        return prefix.select(torch.tensor(index, device=self.transformer.device))

    @property
    @override
    def max_prompt_length(self) -> int:
        return self.config.max_text_len

    @override
    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(ids) + 2 for ids in self._tokenize(prompts)]  # begin and end of text

    def _guided_logits(self, prefix: Prefix, guidance: float) -> Callable[[Tensor, Tensor], Tensor]:
        def logits(codes: Tensor, known: Tensor) -> Tensor:
            if not guidance:
                return self.transformer.code_logits(self.transformer.image_hidden(prefix, codes, known))
            hidden = self.transformer.image_hidden(prefix, codes.repeat(2, 1), known.repeat(2, 1))
            return self.transformer.code_logits(_guide(hidden, guidance))

        return logits

    def _decision_logits(
        self, prompts: Sequence[str], images: Images, chosen_steps: Tensor, guidance: float
    ) -> tuple[Tensor, Tensor]:
        """Logits (M, K) of the codes unmasked in the given steps, each in its step's context; and where (B, N)."""
        steps, batch = images.memory["steps"], len(images)
        where = torch.isin(steps, chosen_steps)
        known = (steps[None] < chosen_steps[:, None, None]).flatten(0, 1)  # (steps x B, N)
        row, column = where.nonzero(as_tuple=True)
        context = torch.searchsorted(chosen_steps, steps[row, column]) * batch + row
        codes = images.codes.repeat(len(chosen_steps), 1)
        return self._context_logits(prompts, codes, known, guidance, (context, column)), where

    def _context_logits(
        self, prompts: Sequence[str], codes: Tensor, known: Tensor, guidance: float, where: tuple[Tensor, ...]
    ) -> Tensor:
        """Logits (M, K) of some codes, given as indices (context, code), in V contexts of each of B images.

        Shapes:
            codes and known (V x B, N).
        """
        batch = len(prompts)
        rows = torch.arange(batch, device=codes.device).repeat(len(codes) // batch)
        prefix = self.prompt_prefix(prompts, guidance)
        if not guidance:
            return self.transformer.code_logits(self.transformer.image_hidden(prefix.select(rows), codes, known)[where])
        prefix = prefix.select(torch.cat((rows, rows + batch)))
        cond, uncond = self.transformer.image_hidden(prefix, codes.repeat(2, 1), known.repeat(2, 1)).chunk(2)
        return self.transformer.code_logits(_guide(torch.cat((cond[where], uncond[where])), guidance))

    # --- understanding ---

    @override
    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        texts = [QUESTION.format(question=question) for question in questions]
        return [[self.tokenizer.eos_token_id, *row] for row in self._tokenize(texts)]

    @property
    @override
    def num_image_tokens(self) -> int:
        return self.config.num_vq_tokens + files.IMAGE_MARKS

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        texts = [plain_text(text, self.tokenizer) for text in texts]
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    @override
    def embed_images(self, images: Images) -> Tensor:
        return self.transformer.embed_codes(images.codes if images.soft is None else images.soft)

    @override
    def image_prefix(self, images: Images) -> Prefix:
        return self.transformer.image_prefix(self.embed_images(images))

    # --- pixels ---

    @override
    def decode(self, images: Images) -> Tensor:
        side = self.config.side
        if images.soft is not None:
            pixels = self.image_tokenizer.decode_soft(images.soft.view(len(images), side, side, -1))
        else:
            pixels = self.image_tokenizer.decode(images.codes.view(len(images), side, side))
        return ((pixels + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    @override
    def encode(self, pixels: Tensor) -> Images:
        size = self.config.side * self.image_tokenizer.config.stride
        if pixels.shape[1:] != (3, size, size):
            raise UserError(f"images of shape {tuple(pixels.shape[1:])}; this checkpoint reads (3, {size}, {size})")
        return Images(self.image_tokenizer.encode(pixels * 2 - 1).flatten(1), pixels=pixels)

    @override
    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """The middle square of each image, as in the public demo.

        Args:
            images: In RGB.
        """
        size = self.config.side * self.image_tokenizer.config.stride
        return torch.stack([_middle_square(image, size) for image in images])

    # --- checkpoints ---

    @property
    @override
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        return files.pretrained_models(self.checkpoint, self.overrides)

    @override
    def save_pretrained(self, path: str | Path) -> None:
        files.save_checkpoint(Path(path), self.config, self.transformer.phi, self.image_tokenizer, self.tokenizer)
        self.sampling_config.save_pretrained(path)


def _middle_square(image: Image.Image, size: int) -> Tensor:
    """The shorter side is resized to `size`, and the rest of the longer one is cut off; (3, size, size) in [0, 1]."""
    shorter = min(image.size)
    if max(image.size) > MAX_ASPECT * shorter:  # resized whole, it would fill the memory
        kept = [min(side, MAX_ASPECT * shorter) for side in image.size]
        left, top = ((side - length) // 2 for side, length in zip(image.size, kept, strict=True))
        image = image.crop((left, top, left + kept[0], top + kept[1]))
    width, height = (int(size * side / shorter) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    square = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def _guide(hidden: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance, `(1 + w) * cond - w * uncond`; the first half of the rows is conditional.

    The head is affine, so guiding hidden states guides the logits, at half the cost.
    """
    cond, uncond = hidden.float().chunk(2)
    return ((1 + guidance) * cond - guidance * uncond).to(hidden.dtype)


def _log_probs(logits: Tensor, temperature: float, codes: Tensor) -> Tensor:
    """Log-probability of each code under its own logits; (M, K), (M,) -> (M,)."""
    return (logits.float() / temperature).log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)


def _concat_masks(values: Tensor, num_masks: int) -> Tensor:
    """All masks of an image in one row; (V x B, N) -> (B, V x N)."""
    return torch.cat(values.chunk(num_masks), dim=1)
