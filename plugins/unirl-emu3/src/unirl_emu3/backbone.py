"""Emu3 as a backbone."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Emu3ForConditionalGeneration, Emu3Processor
from transformers.models.emu3.modeling_emu3 import Emu3DecoderLayer

from unirl import Images, UserError
from unirl.backbones import (
    AutoregressiveImages,
    PlaceholderChat,
    TextAnswers,
    building_on_cpu,
    locate,
    pixel_statistics,
    placeholder_statistics,
)
from unirl_emu3 import checkpoint as files
from unirl_emu3.modeling import Emu3Transformer
from unirl_emu3.processing import Emu3Chat

RATIO, IMAGE_AREA = "1:1", 518400
"""The size of images that the authors generate."""
BATCH_SIZE = 16
"""Images that the image tokenizer encodes or decodes at a time without gradient."""
NEGATIVE_PROMPT = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)
"""The authors' own."""


class Emu3(AutoregressiveImages, TextAnswers):
    """Emu3 (arXiv 2409.18869) of any size, in transformers' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "BAAI/Emu3-Gen-hf".
        ratio: Width to height of images, such as "1:1" or "4:3". Defaults to the checkpoint's
            generation_config.json, where `save_pretrained` writes it, or else to 1:1.
        image_area: Pixels of an image; 64 pixels a code. Defaults as `ratio`, or else to 518400, the authors' own.
        negative_prompt: The prompt of the unconditional half of guidance.
        system: The first message of every conversation about an image; empty for none.
        gradient_checkpointing: Recompute layers in the backward pass: much less memory, a third more time.
        cuda_graph: Sample images by CUDA graphs. By default wherever the model is on a CUDA device, and without one,
            with a warning, where none can be captured; true insists, false never tries.
    """

    model_types = ("emu3", "Emu3")
    transformer: Emu3Transformer
    chat: Emu3Chat | PlaceholderChat
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        checkpoint: str,
        ratio: str | None = None,
        image_area: int | None = None,
        negative_prompt: str = NEGATIVE_PROMPT,
        system: str = "You are a helpful assistant.",
        gradient_checkpointing: bool = True,
        cuda_graph: bool | None = None,
    ) -> None:
        super().__init__()
        files.check_size(ratio or RATIO, IMAGE_AREA if image_area is None else image_area)
        self.checkpoint, self.gradient_checkpointing = checkpoint, gradient_checkpointing
        self.ratio, self.image_area, self.cuda_graph = ratio, image_area, cuda_graph
        self.negative_prompt, self.system = negative_prompt, system

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            model, processor = files.build_on_meta(self.checkpoint)
            self._assemble(model)
            if processor is None:
                self._set_chat(PlaceholderChat(), placeholder_statistics())
            else:
                self._add_processor(processor)
            return
        with building_on_cpu():
            model, self.processor = files.load_checkpoint(locate(self.checkpoint))
            self._assemble(model)
            self._add_processor(self.processor)

    def _assemble(self, model: Emu3ForConditionalGeneration) -> None:
        size: Any = model.generation_config
        size.ratio = self.ratio or getattr(size, "ratio", None) or RATIO
        size.image_area = self.image_area or getattr(size, "image_area", None) or IMAGE_AREA
        lines, self.codes_per_line = files.grid(size.ratio, size.image_area, model.config)
        self.num_image_codes, self.end_of_line_id = lines * self.codes_per_line, model.vocabulary_mapping.eol_token_id
        self.transformer = Emu3Transformer(model, (lines, self.codes_per_line), self.gradient_checkpointing)
        self.transformer.vq.requires_grad_(False)

    def _add_processor(self, processor: Emu3Processor) -> None:
        chat = Emu3Chat(processor, self.transformer.model.generation_config, self.system)
        chat.question_ids(["one"])  # a template that does not fit is refused here, not after the first rollout
        self._set_chat(chat, pixel_statistics(processor.image_processor, self.checkpoint))
        length, longest = len(self._negative_ids), self.max_prompt_length
        if longest is not None and length > longest:
            raise UserError(
                f"negative_prompt has {length} tokens, and the model reads {longest} before an image of "
                f"{self.num_image_codes} codes; shorten it, or give a smaller image_area"
            )

    def _set_chat(self, chat: Emu3Chat | PlaceholderChat, values: tuple[Tensor, Tensor]) -> None:
        self.chat, self.image_start_id = chat, chat.image_start_id
        for name, value in zip(("mean", "std"), values, strict=True):
            self.register_buffer(name, value, persistent=False)

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (Emu3DecoderLayer,)

    # --- text ---

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return self.chat.prompt_ids(prompts)

    def unconditional_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        return self._negative_ids

    @cached_property
    def _negative_ids(self) -> list[int]:
        return self.chat.prompt_ids([self.negative_prompt])[0]

    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return self.chat.question_ids(questions)

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.chat.answer_ids(texts)

    def decode_text(self, ids: Tensor) -> str:
        return self.chat.decode_text(ids)

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; None where the model was built without one."""
        return getattr(self.chat, "tokenizer", None)

    @property
    def image_context_ids(self) -> list[int]:
        return self.chat.image_context_ids

    @property
    def eos_token_ids(self) -> list[int]:
        return self.chat.eos_token_ids

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        if images.soft is not None:
            return self._to_pixels(self.transformer.checkpointed(self.transformer.decode_codes, images.soft))
        with torch.no_grad():
            batches = images.codes.split(BATCH_SIZE)
            return torch.cat([self._to_pixels(self.transformer.decode_codes(batch)) for batch in batches])

    def _to_pixels(self, normalized: Tensor) -> Tensor:
        return (normalized * self.std + self.mean).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        factor = self.transformer.vq.vision_spatial_factor
        expected = (3, *(factor * side for side in self.transformer.size))
        if pixels.shape[1:] != expected:
            raise UserError(f"images of shape {tuple(pixels.shape[1:])}; with this image_area it reads {expected}")
        batches = [self.transformer.encode_pixels((part - self.mean) / self.std) for part in pixels.split(BATCH_SIZE)]
        return Images(torch.cat(batches), pixels=pixels)

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str, **options: Any) -> "Emu3":
        """A built model; the options are those of the constructor."""
        backbone = cls(path_or_id, **options)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        files.save_checkpoint(Path(path), self.transformer.model, self.processor)
        self.sampling_config.save_pretrained(path)
