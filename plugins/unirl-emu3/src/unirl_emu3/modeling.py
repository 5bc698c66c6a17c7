"""Emu3 as a causal transformer whose image codes are tokens of its vocabulary."""

from typing import Any

import torch
from torch import Tensor
from transformers import Emu3ForConditionalGeneration

from unirl import UserError
from unirl.backbones import LlamaDecoder, LlamaStaticDecoder, SharedVocabularyTransformer
from unirl.sampling import Prefix


class Emu3Transformer(SharedVocabularyTransformer):
    """transformers' Emu3; computes only the rows and head columns that are read.

    Args:
        model: The model.
        size: Lines of codes and codes of a line.
        gradient_checkpointing: Recompute layers in the backward pass to save memory.
    """

    def __init__(
        self, model: Emu3ForConditionalGeneration, size: tuple[int, int], gradient_checkpointing: bool = True
    ) -> None:
        config: Any = model.config
        ids = code_ids(config.vocabulary_map, config.vq_config.codebook_size)
        super().__init__(model, ids, gradient_checkpointing)
        self.size = size

    def incremental_decoder(self, prefix: Prefix, max_new_tokens: int, static_shapes: bool = False) -> LlamaDecoder:
        decoder = LlamaStaticDecoder if static_shapes else LlamaDecoder
        return decoder(self.language_model, prefix, max_new_tokens)

    @property
    def vq(self) -> Any:
        """The image tokenizer."""
        return self.model.model.vqmodel

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Codes (B, N) of normalized images (B, 3, H, W)."""
        sizes = torch.tensor([pixels.shape[2:]] * len(pixels))
        return torch.stack(self.vq.encode(pixels, sizes).image_tokens).flatten(1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Normalized images (B, 3, H, W) of integer codes (B, N) or soft codes (B, N, K)."""
        grid = codes.unflatten(1, self.size)
        if not codes.is_floating_point():
            return self.vq.decode(grid)
        latents = (grid @ self.vq.quantize.embedding.weight).permute(0, 3, 1, 2).unsqueeze(2)  # (B, D, 1, H, W)
        frames = self.vq.decoder(self.vq.post_quant_conv(latents).transpose(1, 2), latents.transpose(1, 2))
        return frames.unflatten(0, (len(codes), -1))[:, 0]  # a short video; its first frame is the image


def code_ids(vocabulary: dict[str, int], count: int) -> list[int]:
    """The token id of each image code, which are consecutive.

    Args:
        vocabulary: The `vocabulary_map` of the checkpoint's config.json.
        count: Entries of its codebook.

    Raises:
        UserError: tokens are missing, or in another order.

    Example:
        >>> code_ids({"<|visual token 000000|>": 7, "<|visual token 000001|>": 8}, 2)
        [7, 8]
    """
    ids = [vocabulary.get(f"<|visual token {code:06d}|>") for code in range(count)]
    first = ids[0]
    if first is None or ids != list(range(first, first + count)):
        wrong = next((c for c, i in enumerate(ids) if i is None or first is None or i != first + c), 0)
        raise UserError(
            f"vocabulary_map: <|visual token {wrong:06d}|> is {ids[wrong]}; the {count} codes of the codebook "
            "must be there, one after another"
        )
    return list(range(first, first + count))
