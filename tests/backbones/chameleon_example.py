"""Chameleon as a backbone: an example of the mixins over a class of transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, ChameleonConfig, ChameleonForConditionalGeneration

from unirl import Images, UserError, hookimpl
from unirl.backbones import (
    AutoregressiveImages,
    SharedVocabularyTransformer,
    TextAnswers,
    load_transformers,
    locate,
    plain_text,
)


class ChameleonWithDecoder(ChameleonForConditionalGeneration):
    """Chameleon with an image decoder, which transformers' class leaves out: here one patch for each code."""

    def __init__(self, config: ChameleonConfig) -> None:
        super().__init__(config)
        self.stride = 2 ** (len(config.vq_config.channel_multiplier) - 1)
        self.image_decoder = nn.ConvTranspose2d(config.vq_config.embed_dim, 3, self.stride, self.stride)


class Chameleon(AutoregressiveImages, TextAnswers):
    """Chameleon (arXiv 2405.09818): images are VQ-VAE codes inside the text vocabulary.

    Args:
        checkpoint: A local folder, `package:folder`, or a hub id.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def build(self, meta: bool = False) -> None:
        if hasattr(self, "transformer"):
            return
        folder = locate(self.checkpoint)
        if meta:
            with torch.device("meta"):
                model = ChameleonWithDecoder(ChameleonConfig.from_pretrained(folder))
        else:
            model = load_transformers(ChameleonWithDecoder, folder)
        code_to_id = model.model.vocabulary_mapping.img2bpe
        self.transformer = SharedVocabularyTransformer(model, [code_to_id[code] for code in sorted(code_to_id)])
        self.size = model.config.vq_config.resolution
        self.side = self.size // model.stride
        self.num_image_codes = self.side**2
        for frozen in (model.model.vqmodel, model.image_decoder):
            frozen.requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        tokens = ["<racm3:break>", "<eoss>", "<reserved08706>"]
        self.image_start_id, self.image_end_id, self.answer_id = self.tokenizer.convert_tokens_to_ids(tokens)

    @property
    def blocks(self) -> tuple[type[nn.Module], ...]:
        return (type(self.transformer.language_model.layers[0]),)

    # --- text ---

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        rows = self.tokenizer([plain_text(p, self.tokenizer) for p in prompts], add_special_tokens=False)["input_ids"]
        return [[self.tokenizer.bos_token_id, *row] for row in rows]

    @property
    def image_context_ids(self) -> list[int]:
        return [self.tokenizer.bos_token_id, self.image_start_id]

    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        rows = self.tokenizer([plain_text(q, self.tokenizer) for q in questions], add_special_tokens=False)["input_ids"]
        return [[self.image_end_id, *row, self.answer_id] for row in rows]

    # --- pixels ---

    def decode(self, images: Images) -> Tensor:
        model = self.transformer.model
        table = model.model.vqmodel.quantize.embedding.weight
        codes = F.one_hot(images.codes, len(table)).to(table) if images.soft is None else images.soft
        return model.image_decoder((codes @ table).mT.unflatten(2, (self.side, self.side))).sigmoid()

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Images:
        if pixels.shape[1:] != (3, self.size, self.size):
            raise UserError(f"images of shape {tuple(pixels.shape[1:])}; expected (3, {self.size}, {self.size})")
        codes = self.transformer.model.model.vqmodel.encode(pixels * 2 - 1, return_dict=True).image_tokens
        return Images(codes.view(len(pixels), -1), pixels)

    # --- checkpoints ---

    def save_pretrained(self, path: str | Path) -> None:
        self.transformer.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        self.sampling_config.save_pretrained(path)


@hookimpl
def unirl_register_backbones(register: Any) -> None:
    register("chameleon", "chameleon_example:Chameleon")
