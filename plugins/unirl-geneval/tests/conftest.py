"""Tiny models with random weights in the formats of the real ones, and golden data of the public code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from unirl.judges import COLORS
from unirl_geneval.vocabulary import CLASSES

torch.set_num_threads(1)  # tiny models are slower with more threads

REFERENCE = Path(__file__).parents[3].parent / "shared/reference/geneval"
"""What GenEval's, mmdet's and GenEval2's own code gave on small random weights; it lies beside the repository."""
WORDS = (
    "a photo of - colored object Are there any cups in the image How many is cup red Answer one word two Yes yes . ?"
)
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CHAT = (
    "{% for message in messages %}user : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


@pytest.fixture
def reference() -> Path:
    """The folder of golden data."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the golden data of GenEval are not at {REFERENCE}")
    return REFERENCE


@pytest.fixture
def load_image() -> Callable[[Path], Tensor]:
    """Reads an image as levels (3, H, W)."""
    return lambda path: torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


@pytest.fixture
def unpack() -> Callable[[Tensor, int, int], Tensor]:
    """Reads packed golden masks as (N, H, W) bool."""

    def unpacked(masks: Tensor, height: int, width: int) -> Tensor:
        bits = np.unpackbits(masks.numpy(), axis=-1)[..., : height * width]
        return torch.from_numpy(bits).bool().view(-1, height, width)

    return unpacked


def tokenizer(length: int, ends: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of words; that of a CLIP adds special tokens, and pads with the last one."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    known = dict.fromkeys([*special, *WORDS.split(), *COLORS])
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
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


def detector_config(**changes: Any) -> Mask2FormerConfig:
    """Of a Mask2Former with a Swin, as small as it gets."""
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=4,
        mlp_ratio=2.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    options: dict[str, Any] = {
        "backbone_config": swin,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: index for index, name in enumerate(CLASSES)},
        "num_queries": 6,
        "num_attention_heads": 4,
        "encoder_layers": 1,
        "decoder_layers": 3,
    }
    sizes = ("hidden_dim", "feature_size", "mask_feature_size", "encoder_feedforward_dim", "dim_feedforward")
    return Mask2FormerConfig(**(options | dict.fromkeys(sizes, 32) | changes))


def save_detector(path: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    Mask2FormerForUniversalSegmentation(detector_config(**changes)).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def make_detector() -> Callable[..., Path]:
    """Saves a tiny detector; keywords change its config."""
    return save_detector


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mask2Former of COCO's classes, so unsure of everything that it detects nothing."""
    return save_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `CLIPModel` of 32 px with its tokenizer."""
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": 60, "max_position_embeddings": 16, "eos_token_id": 2, "pad_token_id": 2}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(path)
    tokenizer(16, ends=True).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llava of 32 px with a chat template."""
    path = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    text = LlamaConfig(**TOWER, vocab_size=60, max_position_embeddings=128, pad_token_id=1, bos_token_id=0)
    vision = CLIPVisionConfig(**TOWER, image_size=32, patch_size=8)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=4))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer(128, ends=False),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(path)
    return path
