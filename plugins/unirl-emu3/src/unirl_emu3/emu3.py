"""Emu3 as a backbone: one language model and one vocabulary, in which a picture is lines of codes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Emu3ForConditionalGeneration, Emu3Processor
from transformers.models.emu3.modeling_emu3 import Emu3DecoderLayer

from unirl.backbones.autoregressive import TextAnswers
from unirl.backbones.checkpoints import locate, normalization
from unirl.errors import UserError
from unirl.types import Images
from unirl_emu3 import checkpoint as files
from unirl_emu3.chat import Chat
from unirl_emu3.drawing import Drawing
from unirl_emu3.layout import Layout, visual_tokens
from unirl_emu3.transformer import Transformer

RATIO, AREA = "1:1", 518400
"""What the authors draw."""
PICTURES = 16
"""Pictures that go through the image tokenizer at a time where no gradient is needed."""
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry."
)
"""What the authors lead their drawings away from."""


class Emu3(Drawing, TextAnswers):
    """Emu3 (arXiv 2409.18869) at any size, in transformers' format.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id such as "BAAI/Emu3-Gen-hf".
        ratio: Width to height of the pictures, such as "1:1" or "4:3". By default what the checkpoint's
            generation_config.json says, where `save_pretrained` writes it, or else 1:1.
        image_area: Pixels of a picture; 64 pixels a code. By default as `ratio`, or else 518400, the authors' own.
        negative_prompt: What guidance leads away from.
        system: The first message of every conversation about a picture; empty for none.
        gradient_checkpointing: Keep little for the gradient, and compute it again: far less memory, a third more time.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        checkpoint: str,
        ratio: str | None = None,
        image_area: int | None = None,
        negative_prompt: str = NEGATIVE,
        system: str = "You are a helpful assistant.",
        gradient_checkpointing: bool = True,
    ) -> None:
        super().__init__()
        files.check_size(ratio or RATIO, AREA if image_area is None else image_area)
        self.checkpoint, self.gradient_checkpointing = checkpoint, gradient_checkpointing
        self.ratio, self.image_area = ratio, image_area
        self.negative_prompt, self.system = negative_prompt, system

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            self._assemble(*files.public(self.checkpoint))
            return
        self._assemble(*files.load(locate(self.checkpoint)))

    def _assemble(self, emu3: Emu3ForConditionalGeneration, processor: Emu3Processor | None) -> None:
        config: Any = emu3.config
        size: Any = emu3.generation_config
        size.ratio = self.ratio or getattr(size, "ratio", RATIO)
        size.image_area = self.image_area or getattr(size, "image_area", AREA)
        height, width = files.grid(size.ratio, size.image_area, config)
        vocabulary, count = emu3.model.vocabulary_mapping, config.vq_config.codebook_size
        first = visual_tokens(vocabulary.vocab_map, count)
        self.layout = Layout(height, width, first, count, vocabulary.eol_token_id)
        self.length = self.layout.codes
        self.transformer = Transformer(emu3, self.layout, self.gradient_checkpointing)
        emu3.model.vqmodel.requires_grad_(False)
        self.train(self.training)
        if processor is not None:
            self._equip(processor)

    def _equip(self, processor: Emu3Processor) -> None:
        self.processor = processor
        self.chat = Chat(processor, self.transformer.emu3.generation_config, self.system)
        self.chat.questions(["one", "two"])  # says here, not after the first drawing, that a template does not fit
        values = normalization(processor.image_processor, self.checkpoint)
        for name, value in zip(("mean", "std"), values, strict=True):
            self.register_buffer(name, value, persistent=False)

    def train(self, mode: bool = True) -> "Emu3":
        super().train(mode)
        if hasattr(self, "transformer"):  # public configs ask for dropout, with which no drawing is scored as drawn
            self.transformer.emu3.eval()
        return self

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (Emu3DecoderLayer,)

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        if images.soft is not None:
            return self._pixels(self.transformer.checkpointed(self.transformer.decode_codes, images.soft))
        with torch.no_grad():
            return torch.cat([self._pixels(self.transformer.decode_codes(part)) for part in images.codes.split(PICTURES)])

    def _pixels(self, painted: Tensor) -> Tensor:
        return (painted * self.std + self.mean).clamp(0, 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        factor = self.transformer.parts.vqmodel.vision_spatial_factor
        size = (3, self.layout.height * factor, self.layout.width * factor)
        if pixels.shape[1:] != size:
            raise UserError(f"pictures of shape {tuple(pixels.shape[1:])}; with this image_area it sees {size}")
        parts = [self.transformer.read((part - self.mean) / self.std) for part in pixels.split(PICTURES)]
        return Images(torch.cat(parts), pixels=pixels)

    def embed_images(self, images: Images) -> Tensor:
        """A drawing is seen through its own codes: nothing is decoded for it."""
        return self.transformer.lines(images.codes if images.soft is None else images.soft)

    # --- checkpoints ---

    @classmethod
    def from_pretrained(cls, path_or_id: str, **options: Any) -> "Emu3":
        backbone = cls(path_or_id, **options)
        backbone.build()
        return backbone

    def save_pretrained(self, path: str | Path) -> None:
        files.save(Path(path), self.transformer.emu3, self.processor)
