"""A tiny Emu3 with random weights, in the public checkpoints' own format: `python -m unirl_emu3.tiny FOLDER`.

For trying things without a GPU and without a model hub. It is not trained: its images are noise.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from unirl_emu3 import checkpoint

SPECIAL_TOKENS = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
TEMPLATE = (
    "{%for m in messages%}{%if m['role']!='system'%}{{m['role'].upper()+': '}}{%endif%}"
    "{%for c in m['content']%}{%if c['type']=='image'%}<image>{%endif%}{%endfor%}"
    "{%for c in m['content']%}{%if c['type']=='text'%}{{c['text']+' '}}{%endif%}{%endfor%}{%endfor%}"
    "{%if add_generation_prompt%}ASSISTANT:{%endif%}"
)
TEXT_CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
VQ_CONFIG = {"base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "hidden_size": 32, "num_res_blocks": 1}


def tokenizer(codes: int) -> PreTrainedTokenizerFast:
    """Bytes, Emu3's special tokens and its image codes, in the order of the public vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    names = {"pad_token": "<|endoftext|>", "bos_token": "<|extra_203|>", "eos_token": "<|extra_204|>"}
    special = ["<|endoftext|>", "<image>", "<|extra_200|>", "<|extra_201|>", "<|extra_203|>", "<|extra_204|>"]
    special += ["<|image token|>", "<|image start|>", "<|image end|>"]
    words.add_special_tokens([*special, *(f"<|visual token {code:06d}|>" for code in range(codes))])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, extra_special_tokens=SPECIAL_TOKENS, padding_side="left", **names
    )


def save(
    folder: Path, seed: int = 0, codes: int = 40, heads: int = 4, kv_heads: int = 2, tied: bool = False, **text: Any
) -> Path:
    """Write a checkpoint of random weights.

    Args:
        folder: Where to write it.
        seed: Seed of the weights.
        codes: Entries of the codebook.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        tied: Whether the head shares its weights with the embedding.
        text: Other settings of the language model's config.
    """
    torch.manual_seed(seed)
    words = tokenizer(codes)
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    sizes = TEXT_CONFIG | {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": len(words)}
    config = Emu3Config(
        text_config=sizes | ids | text,
        vq_config=VQ_CONFIG | {"codebook_size": codes},
        vocabulary_map=words.get_vocab(),
        tie_word_embeddings=tied,
    )
    model = Emu3ForConditionalGeneration(config)
    widen_weights(model)
    model.generation_config = GenerationConfig(**ids, ratio="1:1", image_area=64 * 64)
    image_processor = Emu3ImageProcessor(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=32 * 32, max_pixels=512 * 512
    )
    checkpoint.save_checkpoint(folder, model, Emu3Processor(image_processor, words, chat_template=TEMPLATE))
    return folder


@torch.no_grad()
def widen_weights(model: Emu3ForConditionalGeneration) -> None:
    """Scale the language model's weights so that its distributions are far from uniform."""
    for name, weight in [*model.model.text_model.named_parameters(), ("head", model.lm_head.weight)]:
        if weight.ndim > 1:
            weight.normal_(std=1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5)
    model.model.vqmodel.quantize.embedding.weight.normal_()


if __name__ == "__main__":
    print(f"a tiny untrained Emu3 is in {save(Path(sys.argv[1]))}")
