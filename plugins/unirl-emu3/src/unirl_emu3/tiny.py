"""A tiny Emu3 with random weights, in the public checkpoints' own format: `python -m unirl_emu3.tiny FOLDER`.

Everything runs on it, on a laptop and without a model hub. It has learnt nothing: its pictures are noise.
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

MARKS = {
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
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
PICTURES = {"base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "hidden_size": 32, "num_res_blocks": 1}


def tokenizer(codes: int) -> PreTrainedTokenizerFast:
    """Bytes, Emu3's marks, and its image codes, in the order of the public vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    names = {"pad_token": "<|endoftext|>", "bos_token": "<|extra_203|>", "eos_token": "<|extra_204|>"}
    marks = ["<|endoftext|>", "<image>", "<|extra_200|>", "<|extra_201|>", "<|extra_203|>", "<|extra_204|>"]
    marks += ["<|image token|>", "<|image start|>", "<|image end|>"]
    words.add_special_tokens([*marks, *(f"<|visual token {code:06d}|>" for code in range(codes))])
    return PreTrainedTokenizerFast(tokenizer_object=words, extra_special_tokens=MARKS, padding_side="left", **names)


def save(
    folder: Path, seed: int = 0, codes: int = 40, heads: int = 4, kv_heads: int = 2, tied: bool = False, **text: Any
) -> Path:
    """Write a checkpoint of random weights.

    Args:
        folder: Where.
        seed: Of the weights.
        codes: In the codebook.
        heads: Of attention.
        kv_heads: Of keys and values.
        tied: Whether the head shares its weights with the embedding.
        text: Other settings of the language model.
    """
    torch.manual_seed(seed)
    words = tokenizer(codes)
    ids = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    sizes = TEXT | {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": len(words)}
    config = Emu3Config(
        text_config=sizes | ids | text,
        vq_config=PICTURES | {"codebook_size": codes},
        vocabulary_map=words.get_vocab(),
        tie_word_embeddings=tied,
    )
    model = Emu3ForConditionalGeneration(config)
    spread(model)
    model.generation_config = GenerationConfig(**ids, ratio="1:1", image_area=64 * 64)
    pictures = Emu3ImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=32 * 32, max_pixels=512 * 512)
    checkpoint.save(folder, model, Emu3Processor(pictures, words, chat_template=TEMPLATE))
    return folder


@torch.no_grad()
def spread(model: Emu3ForConditionalGeneration) -> None:
    """Make the language model's weights as wide as their inputs ask for: no token is as likely as any other."""
    for name, weight in [*model.model.text_model.named_parameters(), ("head", model.lm_head.weight)]:
        if weight.ndim > 1:
            weight.normal_(std=1.0 if "embed" in name else 1.5 * weight.shape[1] ** -0.5)
    model.model.vqmodel.quantize.embedding.weight.normal_()


if __name__ == "__main__":
    print(f"a tiny Emu3 that has learnt nothing is in {save(Path(sys.argv[1]))}")
