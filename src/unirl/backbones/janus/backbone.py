"""Janus draws, and scores what it drew: one code after another, under guidance."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration
from transformers.models.janus.modeling_janus import JanusVisionEncoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from unirl.backbones.autoregressive import AutoregressiveImages, TextAnswers
from unirl.backbones.checkpoints import locate, normalization
from unirl.backbones.janus import checkpoint as files
from unirl.backbones.janus.modeling import Step, Transformer
from unirl.backbones.janus.processing import Chat
from unirl.errors import UserError
from unirl.sampling.autoregressive import sample_codes, sample_uniforms
from unirl.sampling.kv_cache import Prefix, follow, pad_left, prefill
from unirl.sampling.packing import packed
from unirl.types import Images, ImageSampling


class Drawing(AutoregressiveImages):
    """The half of Janus that draws."""

    transformer: Transformer
    chat: Chat
    compiled: bool

    @torch.no_grad()
    def sample_images(
        self, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator | None = None
    ) -> Images:
        uniforms = sample_uniforms(self.length, len(prompts), generator, self.transformer.device)
        with packed(self.transformer, wanted=not self.compiled):
            prefix = self.prompt_prefix(prompts, sampling.guidance)
            step = Step(self.transformer, prefix, sampling, self.length, self.compiled)
            draw = sample_codes(step, self._begin(prefix)[:, 0], self.length, uniforms)
        return Images(draw.codes, actions=draw.codes, log_probs=draw.log_probs)

    def prompt_prefix(self, prompts: Sequence[str], guidance: float) -> Prefix:
        """Each distinct prompt once, without the mark that begins the picture; then as many rows as there are samples.

        The rows without a prompt follow. They know how long it was, so there is one for each distinct length.
        """
        different = list(dict.fromkeys(prompts))
        rows = [tuple(row[:-1]) for row in self.chat.prompts(different)]
        unguided = [tuple(self.chat.unconditional_ids(row)) for row in rows] if guidance else []
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


PICTURES = 16
"""Pictures painted at a time where no gradient is needed."""


class Janus(Drawing, TextAnswers):
    """Janus (arXiv 2410.13848) and Janus-Pro (arXiv 2501.17811) at any size, in transformers' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "deepseek-community/Janus-Pro-1B".
        compile: Draw through `torch.compile`. Each new number of pictures, width of prompts (in steps of 32 tokens),
            guidance or temperature costs one compilation, and after eight of them PyTorch goes on without; on a CPU it
            needs a C++ compiler.
        gradient_checkpointing: Keep little for the gradient, and compute it again: far less memory, a third more time.
    """

    mean: Tensor
    std: Tensor
    recomputed_together = 4
    """Pictures painted, or looked at, at a time where the gradient computes them again: memory does not grow beyond."""

    def __init__(self, checkpoint: str, compile: bool = False, gradient_checkpointing: bool = True) -> None:
        super().__init__()
        self.checkpoint, self.compiled, self.gradient_checkpointing = checkpoint, compile, gradient_checkpointing

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            self._assemble(files.public(self.checkpoint))
            return
        folder = locate(self.checkpoint)
        model, processor = files.load(folder)
        self._assemble(model)
        self.processor, self.chat = processor, Chat(processor, model.generation_config)
        for name, values in zip(("mean", "std"), normalization(processor.image_processor, folder), strict=True):
            self.register_buffer(name, values, persistent=False)

    def _assemble(self, janus: JanusForConditionalGeneration) -> None:
        self.transformer = Transformer(janus, self.gradient_checkpointing)
        vision: Any = janus.config.vision_config
        self.size, self.length = vision.image_size, vision.num_image_tokens
        janus.model.vqmodel.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Janus":
        super().train(mode)
        if hasattr(self, "transformer"):  # under a config's dropout no drawing would be scored as it was drawn
            self.transformer.janus.eval()
        return self

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (LlamaDecoderLayer, JanusVisionEncoderLayer)

    # --- pixels ---

    @property
    def understands_pixels(self) -> bool:
        return True

    def decode(self, images: Images) -> Tensor:
        if images.soft is not None:
            return self._pixels(self._by_parts(self.transformer.decode_codes, images.soft))
        if not images.codes.shape[1]:  # it was given, not drawn
            assert images.pixels is not None
            return images.pixels
        with torch.no_grad():
            return torch.cat(
                [self._pixels(self.transformer.decode_codes(part)) for part in images.codes.split(PICTURES)]
            )

    def _pixels(self, painted: Tensor) -> Tensor:
        return (painted * self.std + self.mean).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        if pixels.shape[1:] != (3, self.size, self.size):
            got, side = tuple(pixels.shape[1:]), self.size
            raise UserError(f"pictures of shape {got}; this checkpoint sees (3, {side}, {side})")
        return Images(torch.empty(len(pixels), 0, dtype=torch.long, device=pixels.device), pixels)

    def embed_images(self, images: Images) -> Tensor:
        given = images.pixels if images.soft is None else None
        pixels = self.decode(images) if given is None else given
        return self._by_parts(self.transformer.embed_images, (pixels - self.mean) / self.std)

    def _by_parts(self, part: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """What a part computes of some pictures, few at a time where the gradient computes it again."""
        size = (
            self.recomputed_together if self.gradient_checkpointing and torch.is_grad_enabled() else max(len(given), 1)
        )
        return torch.cat([self.transformer.checkpointed(part, few) for few in given.split(size)])

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "Janus":
        backbone = cls(path_or_id)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        files.save(Path(path), self.transformer.janus, self.processor)
