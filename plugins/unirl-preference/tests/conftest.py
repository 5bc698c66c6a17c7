"""Tiny checkpoints with random weights, in the formats of the real ones."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(1)  # tiny models are slower with more threads

WORDS = (
    "a photo of two three red blue circle circles square squares ring cross and above does this image show answer yes "
    "or no Yes No . ? user : assistant"
)
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CHAT = (
    "{% for message in messages %}user : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


def tokenizer(length: int, ends: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of words; that of a CLIP adds special tokens, and pads with the last one."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    words = models.WordLevel({word: i for i, word in enumerate([*special, *WORDS.split()])}, unk_token="<unk>")
    raw = Tokenizer(words)
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>" if ends else "<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=length,
    )


def image_processor(side: int) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `CLIPModel` of 32 px and 12 tokens."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": 40, "max_position_embeddings": 12, "eos_token_id": 2, "pad_token_id": 2}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for parameter in model.parameters():  # at initialization, embeddings of all images are nearly equal
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(path)
    tokenizer(12, ends=True).save_pretrained(path)
    image_processor(32).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llava of 32 px with a chat template."""
    path = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    text = LlamaConfig(**TOWER, vocab_size=40, max_position_embeddings=128, pad_token_id=1, bos_token_id=0)
    vision = CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    LlavaProcessor(
        image_processor(32),
        tokenizer(128, ends=False),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(path)
    return path
