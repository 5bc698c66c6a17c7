"""Janus as a backbone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration, JanusProcessor
from transformers.models.janus.modeling_janus import JanusVisionEncoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from typing_extensions import override

from unirl.backbones.checkpoints import building_on_cpu, locate, pixel_statistics
from unirl.backbones.janus import checkpoint as files
from unirl.backbones.janus.modeling import JanusTransformer
from unirl.backbones.janus.pixels import fit_to_square, tower_statistics, truncate_to_uint8
from unirl.backbones.janus.processing import JanusChat
from unirl.backbones.mixins import AutoregressiveImages, TextAnswers
from unirl.backbones.placeholders import PlaceholderChat, placeholder_statistics
from unirl.backbones.sampling_config import SamplingConfig
from unirl.errors import UserError
from unirl.types import Images, ImageSampling

DECODE_BATCH_SIZE = 16
"""Images decoded at a time without gradient."""


class Janus(AutoregressiveImages, TextAnswers):
    """Janus (arXiv 2410.13848) and Janus-Pro (arXiv 2501.17811) of any size.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id, in its authors' format such as
            "deepseek-ai/Janus-1.3B", or in transformers' such as "deepseek-community/Janus-Pro-1B".
        compile: Sample images through `torch.compile`. Each new number of images, prompt width (in steps of 32 tokens),
            guidance and temperature costs one compilation; after eight of them PyTorch goes on without. On a CPU it
            needs a C++ compiler.
        gradient_checkpointing: Recompute layers in the backward pass: much less memory, a third more time.
        cuda_graph: Sample images by CUDA graphs, which small models and groups gain most from. By default wherever
            the model is on a CUDA device, and without one, with a warning, where none can be captured; true insists,
            false never tries.
        do_normalize: Whether images that are asked about are normalized; generated ones are decoded by the same mean
            and deviation in any case. By default as the checkpoint says, and always in the authors' format, where
            Janus-1.3B says false, with a warning. What is chosen is saved with the model.
        uint8_pixels: Round the pixels of generated images down to 8 bits before anything reads them, as the authors'
            code does on the way through a file. Straight-through codes have the same gradient either way.
    """

    model_types = ("janus", "multi_modality")
    transformer: JanusTransformer
    chat: JanusChat | PlaceholderChat
    mean: Tensor
    std: Tensor
    tower_mean: Tensor
    tower_std: Tensor
    recompute_batch_size = 4
    """Images that are decoded or encoded at a time with gradient checkpointing: it bounds the memory."""

    def __init__(
        self,
        checkpoint: str,
        compile: bool = False,
        gradient_checkpointing: bool = True,
        cuda_graph: bool | None = None,
        do_normalize: bool | None = None,
        uint8_pixels: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint, self.compiled, self.cuda_graph = checkpoint, compile, cuda_graph
        self.gradient_checkpointing = gradient_checkpointing
        self.do_normalize, self.uint8_pixels = do_normalize, uint8_pixels

    @override
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        if meta:
            model, processor = files.build_on_meta(self.checkpoint, self.do_normalize)
            self._assemble(model)
            self._add_processor(processor)
            return
        with building_on_cpu():
            model, processor = files.load_checkpoint(locate(self.checkpoint), self.do_normalize)
            self._assemble(model)
            self._add_processor(processor)

    def _assemble(self, janus: JanusForConditionalGeneration) -> None:
        self.transformer = JanusTransformer(janus, self.gradient_checkpointing)
        vision: Any = janus.config.vision_config
        self.image_size, self.num_image_codes = vision.image_size, vision.num_image_tokens
        janus.model.vqmodel.requires_grad_(False)

    def _add_processor(self, processor: JanusProcessor | None) -> None:
        """Without a processor, lengths of texts are about right, and their ids have no meaning."""
        if processor is None:
            self.chat, statistics = PlaceholderChat(), placeholder_statistics()
            seen = statistics
        else:
            self.processor, self.chat = processor, JanusChat(processor, self.transformer.janus.generation_config)
            statistics = pixel_statistics(processor.image_processor, self.checkpoint, allow_unnormalized=True)
            seen = tower_statistics(processor.image_processor, statistics)
        self.image_start_id = self.chat.image_start_id
        for name, values in zip(("mean", "std", "tower_mean", "tower_std"), (*statistics, *seen), strict=True):
            self.register_buffer(name, values, persistent=False)

    @property
    @override
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (LlamaDecoderLayer, JanusVisionEncoderLayer)

    # --- text ---

    @override
    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return self.chat.prompt_ids(prompts)

    @override
    def unconditional_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        return self.chat.unconditional_ids(prompt_ids)

    @override
    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return self.chat.question_ids(questions)

    @override
    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.chat.answer_ids(texts)

    @override
    def decode_text(self, ids: Tensor) -> str:
        return self.chat.decode_text(ids)

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; None where the model was built without one."""
        return getattr(self.chat, "tokenizer", None)

    @property
    @override
    def default_sampling_config(self) -> SamplingConfig:
        """With the guidance of the checkpoint's `generation_config.json`."""
        guidance = files.guidance_of(self.transformer.janus.generation_config, self.checkpoint)
        return SamplingConfig(ImageSampling(guidance=guidance))

    @property
    @override
    def image_context_ids(self) -> list[int]:
        return self.chat.image_context_ids

    @property
    @override
    def eos_token_ids(self) -> list[int]:
        return self.chat.eos_token_ids

    # --- pixels ---

    @property
    @override
    def understands_pixels(self) -> bool:
        return True

    @override
    def decode(self, images: Images) -> Tensor:
        if images.soft is not None:
            return self._to_pixels(self._in_batches(self.transformer.decode_codes, images.soft))
        if not images.codes.shape[1]:  # given pixels, not generated codes
            assert images.pixels is not None
            return images.pixels
        with torch.no_grad():
            batches = images.codes.split(DECODE_BATCH_SIZE)
            return torch.cat([self._to_pixels(self.transformer.decode_codes(batch)) for batch in batches])

    def _to_pixels(self, normalized: Tensor) -> Tensor:
        pixels = (normalized * self.std + self.mean).clamp(0, 1)
        return truncate_to_uint8(pixels) if self.uint8_pixels else pixels

    @torch.no_grad()
    @override
    def encode(self, pixels: Tensor) -> Images:
        expected = (3, self.image_size, self.image_size)
        if pixels.shape[1:] != expected:
            raise UserError(f"images of shape {tuple(pixels.shape[1:])}; this checkpoint reads {expected}")
        return Images(torch.empty(len(pixels), 0, dtype=torch.long, device=pixels.device), pixels)

    @override
    def preprocess(self, images: Sequence[Image.Image]) -> Tensor:
        """Images of any size as the pixels (B, 3, H, W) that `encode` takes, resized as in the authors' code.

        Args:
            images: Such as those that `PIL.Image.open` reads.
        """
        processor: Any = self.processor.image_processor
        red, green, blue = processor.background_color
        size, min_size = self.image_size, processor.min_size
        return torch.stack([fit_to_square(image, size, min_size, (red, green, blue)) for image in images])

    def embed_images(self, images: Images) -> Tensor:
        """Features of the images' pixels, which are decoded where they are not there or carry gradient."""
        pixels = images.pixels if images.soft is None and images.pixels is not None else self.decode(images)
        return self._in_batches(self.transformer.embed_pixels, (pixels - self.tower_mean) / self.tower_std)

    def _in_batches(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Call a function on all images; with gradient checkpointing on a few at a time."""
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        size = self.recompute_batch_size if recompute else max(len(images), 1)
        return torch.cat([self.transformer.checkpointed(function, batch) for batch in images.split(size)])

    # --- checkpoints ---

    @override
    def save_pretrained(self, path: str | Path) -> None:
        files.save_checkpoint(Path(path), self.transformer.janus, self.processor)
        self.sampling_config.save_pretrained(path)
