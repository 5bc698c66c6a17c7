"""The world's tiny Janus before it has learnt anything: transformers' own classes, small, with fresh weights."""

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
from unirl_shapes.pretrain.lessons import text_tokenizer
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
MARKS = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
TEMPLATE = (
    "{%for message in messages%}{{message['role']}} : "
    "{%for part in message['content']%}"
    "{%if part['type']=='image'%}<image_placeholder> {%else%}{{part['text']}}{%endif%}"
    "{%endfor%}{%if not loop.last or add_generation_prompt%} {%endif%}{%endfor%}"
    "{%if add_generation_prompt%}assistant :{%endif%}"
)
"""Janus's own form in the world's words."""


def untrained(folder: Path, vq: JanusVQVAE, seed: int) -> Janus:
    """A tiny Janus with fresh weights around an image tokenizer, by way of a checkpoint in transformers' format."""
    words = chat_tokenizer()
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    config = JanusConfig(
        text_config=TEXT_SIZES | ids | {"vocab_size": len(words)},
        vision_config=VISION_SIZES,
        vq_config=VQ_SIZES,
        image_token_id=words.get_vocab()[words.image_token],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    spread(model)
    model.model.vqmodel.load_state_dict(vq.state_dict())
    alike(model)
    begin = {"boi_token_id": words.get_vocab()[words.boi_token]}
    model.generation_config = GenerationConfig(**ids, guidance_scale=5, generation_kwargs=begin)
    side = VISION_SIZES["image_size"]
    pictures = JanusImageProcessor(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    save_checkpoint(folder, model, JanusProcessor(pictures, words, chat_template=TEMPLATE, num_image_tokens=CELLS))
    return Janus.from_pretrained(str(folder))


@torch.no_grad()
def spread(model: JanusForConditionalGeneration) -> None:
    """Draw the weights of all but the towers anew, as wide as their inputs ask for.

    transformers' own width is made for thousands of channels. At a hundred, attention begins flat, and a model that
    must find the circle that a question is about is still looking after a thousand steps.
    """
    parts = model.model
    for part in (parts.language_model, parts.aligner, parts.generation_aligner, parts.generation_head, model.lm_head):
        for weight in part.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[1] ** -0.5)
    parts.language_model.embed_tokens.weight.normal_(std=0.1)
    parts.generation_embeddings.weight.normal_()


@torch.no_grad()
def alike(model: JanusForConditionalGeneration) -> None:
    """Begin the weights of the codes, in and out, as the tokenizer's entries: like codes, like weights.

    A red ring and a blue ring begin as neighbours, so that what is learnt about one color or shape holds for all.
    """
    parts = model.model
    entries, head = parts.vqmodel.quantize.embedding.weight, parts.generation_head.vision_head
    parts.generation_embeddings.weight.copy_(entries)
    mixed = torch.randn(entries.shape[1], head.in_features) * (entries.shape[1] * head.in_features) ** -0.5
    head.weight.copy_(entries @ mixed)
    head.bias.zero_()


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The world's words and Janus's marks around pictures."""
    plain = text_tokenizer()
    plain.add_special_tokens({"bos_token": "<bos>", "pad_token": "<pad>"})
    begin = ("<bos>", plain.bos_token_id)
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[begin])
    names = {"bos_token": "<bos>", "eos_token": plain.eos_token, "pad_token": "<pad>", "unk_token": plain.unk_token}
    return PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer, extra_special_tokens=MARKS, **names)
