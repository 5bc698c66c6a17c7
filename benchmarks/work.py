"""Floating-point operations of generation, and what the same threads reach in one large matrix product."""

import time

import torch
from sizes import GUIDANCE, STEPS, Case
from torch import nn

SIDE = 2048


def step_flops(case: Case) -> float:
    """Of a guided denoising step of UniRL, including its share of the text pass."""
    texts = {*case.prompts, ""} if GUIDANCE else set(case.prompts)
    longest = max(len(case.backbone.tokenizer(t)["input_ids"]) for t in texts) + 3  # task, begin and end tokens
    codes, rows = case.backbone.config.num_vq_tokens, 2 * len(case.prompts)
    text = _blocks(case, longest, longest, len(texts))
    image = _blocks(case, codes + 2, longest + codes + 2, rows)
    return image + _head(case, rows * codes, case.backbone.config.codebook_size) + text / STEPS


def plain_step_flops(case: Case) -> float:
    """Of a guided denoising step of the plain loop."""
    config, rows = case.backbone.config, 2 * len(case.prompts)
    length = config.max_text_len + 1 + config.num_vq_tokens + 2
    return _blocks(case, length, length, rows) + _head(case, rows * length, config.vocab_size)


def matmul_flops_per_second() -> float:
    """Reached by a square float32 product, best of three: what a pass over the same weights could reach at most."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begin)
    return 2 * SIDE**3 / min(seconds)


def _blocks(case: Case, length: int, keys: int, rows: int) -> float:
    """Linear layers, and attention of `length` queries over `keys` keys, as it is computed: masked or not."""
    model = case.backbone.transformer.phi.model
    weights = sum(m.weight.numel() for m in model.layers.modules() if isinstance(m, nn.Linear))
    attention = len(model.layers) * 2 * length * keys * model.config.hidden_size
    return 2.0 * rows * (length * weights + attention)


def _head(case: Case, positions: int, columns: int) -> float:
    return 2.0 * positions * columns * case.backbone.transformer.phi.config.hidden_size
