"""The tiny Janus before pre-training: transformers' own classes in small sizes, with random weights."""

from pathlib import Path

import torch
from tokenizers import processors
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.modeling_janus import JanusVQVAE

from unirl.backbones.janus import Janus, save_checkpoint
from unirl_shapes.pretrain.data import text_tokenizer
from unirl_shapes.pretrain.vq import SIZES as VQ_SIZES
from unirl_shapes.vocabulary import CELLS

TEXT_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}
VISION_SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "projection_dim": 128,
    "num_image_tokens": CELLS,
}
SPECIAL_TOKENS = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
TEMPLATE = (
    "{%for message in messages%}{{message['role']}} : "
    "{%for part in message['content']%}"
    "{%if part['type']=='image'%}<image_placeholder> {%else%}{{part['text']}}{%endif%}"
    "{%endfor%}{%if not loop.last or add_generation_prompt%} {%endif%}{%endfor%}"
    "{%if add_generation_prompt%}assistant :{%endif%}"
)
"""Janus's chat template in words of the shapes world."""


def untrained(folder: Path, vq: JanusVQVAE, seed: int) -> Janus:
    """A tiny Janus with random weights and a given image tokenizer.

    Args:
        folder: Where a checkpoint in transformers' format is saved.
        vq: The image tokenizer.
        seed: Seed of the weights.
    """
    tokenizer = chat_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = JanusConfig(
        text_config=TEXT_SIZES | ids | {"vocab_size": len(tokenizer)},
        vision_config=VISION_SIZES,
        vq_config=VQ_SIZES,
        image_token_id=tokenizer.get_vocab()[tokenizer.image_token],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    initialize_weights(model)
    model.model.vqmodel.load_state_dict(vq.state_dict())
    initialize_code_weights(model)
    begin = {"boi_token_id": tokenizer.get_vocab()[tokenizer.boi_token]}
    model.generation_config = GenerationConfig(**ids, guidance_scale=5, generation_kwargs=begin)
    side = VISION_SIZES["image_size"]
    image_processor = JanusImageProcessor(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    save_checkpoint(
        folder, model, JanusProcessor(image_processor, tokenizer, chat_template=TEMPLATE, num_image_tokens=CELLS)
    )
    return Janus.from_pretrained(str(folder))


@torch.no_grad()
def initialize_weights(model: JanusForConditionalGeneration) -> None:
    """Initialize all weights but those of the towers with a standard deviation of one over the root of the inputs.

    transformers' own standard deviation is for thousands of channels. With a hundred, attention is nearly uniform at
    initialization, and is not learned within a thousand steps.

    Args:
        model: Changed in place.
    """
    parts = model.model
    for part in (parts.language_model, parts.aligner, parts.generation_aligner, parts.generation_head, model.lm_head):
        for weight in part.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5)
    parts.language_model.embed_tokens.weight.normal_(std=0.1)
    parts.generation_embeddings.weight.normal_()


@torch.no_grad()
def initialize_code_weights(model: JanusForConditionalGeneration) -> None:
    """Initialize the embeddings and head weights of the codes from the entries of the codebook.

    Codes of the same shape or color then have similar weights, and what is learned about one holds for the others.

    Args:
        model: Changed in place.
    """
    parts = model.model
    entries, head = parts.vqmodel.quantize.embedding.weight, parts.generation_head.vision_head
    parts.generation_embeddings.weight.copy_(entries)
    projection = (
        torch.randn(entries.shape[1], head.in_features, dtype=torch.float32)
        * (entries.shape[1] * head.in_features) ** -0.5
    )
    head.weight.copy_(entries @ projection)
    head.bias.zero_()


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the shapes world with Janus's special tokens of images."""
    text = text_tokenizer()
    text.add_special_tokens({"bos_token": "<bos>", "pad_token": "<pad>"})
    begin = ("<bos>", text.bos_token_id)
    text.backend_tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[begin])
    names = {"bos_token": "<bos>", "eos_token": text.eos_token, "pad_token": "<pad>", "unk_token": text.unk_token}
    return PreTrainedTokenizerFast(
        tokenizer_object=text.backend_tokenizer, extra_special_tokens=SPECIAL_TOKENS, **names
    )
