"""The `backbones` plugin kind: its contract, mixins for autoregressive backbones, and checkpoint helpers."""

from unirl.backbones.base import Backbone
from unirl.backbones.checkpoints import (
    PretrainedModel,
    building_on_cpu,
    check_rope_type,
    describe_error,
    load_exactly,
    load_transformers,
    locate,
    locate_local,
    pixel_statistics,
    quietly,
    read_json,
    read_weights,
)
from unirl.backbones.llama import LlamaDecoder, LlamaStaticDecoder
from unirl.backbones.mixins import AutoregressiveImages, TextAnswers
from unirl.backbones.placeholders import PlaceholderChat, PlaceholderTokenizer, placeholder_statistics
from unirl.backbones.plain_text import plain_text
from unirl.backbones.precision import float32_logits
from unirl.backbones.sampling_config import SamplingConfig
from unirl.backbones.transformer import CausalTransformer, SharedVocabularyTransformer

__all__ = [
    "AutoregressiveImages",
    "Backbone",
    "CausalTransformer",
    "LlamaDecoder",
    "LlamaStaticDecoder",
    "PlaceholderChat",
    "PlaceholderTokenizer",
    "PretrainedModel",
    "SamplingConfig",
    "SharedVocabularyTransformer",
    "TextAnswers",
    "building_on_cpu",
    "check_rope_type",
    "describe_error",
    "float32_logits",
    "load_exactly",
    "load_transformers",
    "locate",
    "locate_local",
    "pixel_statistics",
    "placeholder_statistics",
    "plain_text",
    "quietly",
    "read_json",
    "read_weights",
]
