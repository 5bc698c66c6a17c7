"""Sampling as functions over callables: key-value caches, masked and autoregressive decoding of codes, text."""

from unirl.sampling.autoregressive import SampledCodes, guide, sample_codes, sample_inverse_cdf, sample_uniforms
from unirl.sampling.cuda_graph import sample_codes_by_graphs
from unirl.sampling.kv_cache import (
    CachedTransformer,
    IncrementalDecoder,
    Prefix,
    PrefixCache,
    StaticCache,
    causal_mask,
    checkpointed,
    extend,
    pad_left,
    pad_right,
    prefill,
    run_layers,
    suffix_mask,
)
from unirl.sampling.masked import MaskedSample, choose_steps, cosine_schedule, random_contexts, sample_masked
from unirl.sampling.text import TextModel, answer_log_probs, sample_answers, sample_text

__all__ = [
    "CachedTransformer",
    "IncrementalDecoder",
    "MaskedSample",
    "Prefix",
    "PrefixCache",
    "SampledCodes",
    "StaticCache",
    "TextModel",
    "answer_log_probs",
    "causal_mask",
    "checkpointed",
    "choose_steps",
    "cosine_schedule",
    "extend",
    "guide",
    "pad_left",
    "pad_right",
    "prefill",
    "random_contexts",
    "run_layers",
    "sample_answers",
    "sample_codes",
    "sample_codes_by_graphs",
    "sample_inverse_cdf",
    "sample_masked",
    "sample_text",
    "sample_uniforms",
    "suffix_mask",
]
