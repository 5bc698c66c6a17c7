"""Small random Janus checkpoints in transformers' own format."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusImageProcessor,
    JanusProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{%for m in messages%}{%if m['role']=='user'%}<|User|>: {%else%}<|Assistant|>: {%endif%}"
    "{%for c in m['content']%}{%if c['type']=='image'%}<image_placeholder>\n{%else%}{{c['text']}}{%endif%}{%endfor%}"
    "{%if not loop.last or add_generation_prompt%}\n\n{%endif%}{%endfor%}"
    "{%if add_generation_prompt%}<|Assistant|>:{%endif%}"
)
WORDS = (
    *("<|User|>", "<|Assistant|>", ":", "?", "a", "the", "photo", "of", "red", "blue", "circle", "square"),
    *("two", "three", "how", "many", "what", "color", "is", "it"),
)
MARKS = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}


def tokenizer(first: list[str]) -> PreTrainedTokenizerFast:
    """Whole words; the special tokens in the given order, from id 0 on."""
    vocabulary = {word: i for i, word in enumerate([*first, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    names: dict[str, Any] = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, extra_special_tokens=MARKS, **names)


def save(
    folder: Path,
    seed: int = 0,
    size: int = 32,
    first: str = "<bos> <eos> <pad> <unk>",
    tied: bool = False,
    heads: int = 4,
    kv_heads: int = 4,
    codes: int = 40,
    system: bool = False,
    **changes: Any,
) -> Path:
    """A checkpoint of random weights.

    Args:
        folder: Where.
        seed: Of the weights.
        size: Side of its images, in pixels; 8 pixels a code.
        first: Special tokens in the order of their ids.
        tied: Whether the text head shares its weights with the embedding.
        heads: Of attention.
        kv_heads: Of keys and values.
        codes: In the codebook.
        system: Whether text mode has a system prompt.
        changes: Of the top level of the config.
    """
    torch.manual_seed(seed)
    words, patches = tokenizer(first.split()), size // 8
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": heads}
    text |= {"num_key_value_heads": kv_heads, "vocab_size": len(words) + 2, "max_position_embeddings": 256}
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": size, "patch_size": 8}
    vision |= {"projection_dim": 32, "num_image_tokens": patches**2}
    vq = {"embed_dim": 4, "num_embeddings": codes, "latent_channels": 32, "base_channels": 32, "num_res_blocks": 0}
    vq |= {"channel_multiplier": [1, 1, 1, 1], "projection_dim": 32, "image_token_embed_dim": 32}
    image = {"image_token_id": words.convert_tokens_to_ids("<image_placeholder>")}
    sizes = {"text_config": text | ids, "vision_config": vision, "vq_config": vq, "tie_word_embeddings": tied}
    model = JanusForConditionalGeneration(JanusConfig(**(sizes | image | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # sharp distributions: nothing is as likely as anything else
                parameter.normal_(std=1.0 if "embed" in name else 1.5 * parameter[0].numel() ** -0.5)
    boi = {"boi_token_id": words.convert_tokens_to_ids("<begin_of_image>")}
    model.generation_config = GenerationConfig(**ids, guidance_scale=5, generation_kwargs=boi)
    model.save_pretrained(folder)
    images = JanusImageProcessor(size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = JanusProcessor(
        images, words, chat_template=TEMPLATE, use_default_system_prompt=system, num_image_tokens=patches**2
    )
    processor.save_pretrained(folder)
    return folder
