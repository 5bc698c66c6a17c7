"""Janus at two sizes with random weights, and the inputs of transformers' own loop."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from sizes import SEED
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    JanusVQVAEConfig,
)
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.janus import Janus
from unirl.types import ImageSampling
from unirl_shapes.examples import sample_example
from unirl_shapes.pretrain.janus_model import TEMPLATE, chat_tokenizer, initialize_weights, untrained
from unirl_shapes.pretrain.vq import SIZES as VQ_SIZES

SAMPLING = ImageSampling(guidance=4.0, temperature=1.0)
GREEDY = ImageSampling(guidance=4.0, temperature=0.0)
SCALE = 5.0
"""The same guidance in the notation of transformers."""
TEXT = {"num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400, "max_position_embeddings": 2048}
WIDTHS = {
    "middle": {"hidden_size": 1024, "num_hidden_layers": 12, "intermediate_size": 2816},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 5632},
}
"""The language models; `1b` is that of Janus-Pro-1B."""
VISION = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 384, "patch_size": 16}
VISION |= {"num_image_tokens": 576}
"""The vision tower is small, since it is not used in generation."""
VQ = {"num_embeddings": 16384, "base_channels": 32}


@dataclass(frozen=True)
class Case:
    """A model size and its inputs.

    Args:
        backbone: The model.
        prompt: What to generate.
        inputs: The same prompt as inputs of transformers' `generate`.
    """

    backbone: Janus
    prompt: str
    inputs: dict[str, Any]

    @property
    def model(self) -> Any:
        """transformers' model with the same weights."""
        return self.backbone.transformer.janus


def make(size: str, codes: int | None = None) -> Case:
    """The case of a size, `tiny` (the embedded world's), `middle` or `1b`; with fewer codes, for trials."""
    torch.manual_seed(SEED)
    backbone = (tiny() if size == "tiny" else public(**WIDTHS[size])).eval()
    if codes:
        backbone.num_image_codes = backbone.transformer.base_model.vision_model.config.num_image_tokens = codes
    prompt = sample_example(Random(SEED), "train").prompt
    message = {"role": "user", "content": [{"type": "text", "text": prompt}]}
    text = backbone.processor.apply_chat_template([message], add_generation_prompt=True)
    inputs = backbone.processor(text=[text], generation_mode="image", return_tensors="pt")
    return Case(backbone, prompt, dict(inputs))


def tiny() -> Janus:
    """Hidden 128, 4 layers, 16 codes of 128: exactly the embedded world's, before training."""
    with TemporaryDirectory() as folder:
        return untrained(Path(folder), JanusVQVAE(JanusVQVAEConfig(**VQ_SIZES)), SEED)


def public(**sizes: int) -> Janus:
    """Codes and text vocabulary of the public models, and a language model of any size."""
    words, width = chat_tokenizer(), {"projection_dim": sizes["hidden_size"]}
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    image = {"image_token_id": words.get_vocab()[words.image_token], "tie_word_embeddings": False}
    vq = VQ | width | {"image_token_embed_dim": sizes["hidden_size"]}
    model = JanusForConditionalGeneration(
        JanusConfig(text_config=TEXT | sizes | ids, vision_config=VISION | width, vq_config=vq, **image)
    )
    initialize_weights(model)
    begin = {"boi_token_id": words.get_vocab()[words.boi_token]}
    model.generation_config = GenerationConfig(**ids, guidance_scale=SCALE, generation_kwargs=begin)
    backbone = Janus("public")  # assembled here: a checkpoint of it would take gigabytes
    backbone._assemble(model)
    images = JanusImageProcessor(size={"height": 384, "width": 384})
    backbone._add_processor(JanusProcessor(images, words, chat_template=TEMPLATE, num_image_tokens=576))
    return backbone
