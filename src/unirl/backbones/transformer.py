"""Causal transformers that read text and image codes: the interface that the backbone mixins work on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from unirl.backbones.precision import float32_logits
from unirl.sampling.autoregressive import guide
from unirl.sampling.kv_cache import IncrementalDecoder, Prefix, PrefixCache, checkpointed, run_layers

CHUNK_SIZE = 1024
"""Codes whose logits are in memory at a time."""


class CausalTransformer(nn.Module, ABC):
    """A causal language model that reads text and image codes: what `AutoregressiveImages` and `TextAnswers` work on.

    Dropout stays off in training, too: with it, images would not be scored as they were sampled.

    Args:
        gradient_checkpointing: Recompute layers and logits in the backward pass to save memory.
    """

    def __init__(self, gradient_checkpointing: bool = True) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing

    @property
    @abstractmethod
    def language_model(self) -> Any:
        """A decoder as transformers builds it: `embed_tokens`, `layers`, `norm` and `rotary_emb`.

        A layer is called with hidden states, `attention_mask`, `position_embeddings` and the cache
        (`past_key_values` or `cache`), on which its attention calls `update(key, value, layer_index)`.
        """

    @property
    def max_position_embeddings(self) -> int | None:
        """Tokens of the longest sequence that the language model was made for; None where its config does not say."""
        longest = getattr(getattr(self.language_model, "config", None), "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    @property
    def float32_heads(self) -> Sequence[nn.Module]:
        """Modules whose weights stay float32 where others are held in 16 bit; see `float32_logits`."""
        return ()

    @abstractmethod
    def embed_codes(self, codes: Tensor) -> Tensor:
        """Embeddings (..., D) of integer codes (...), and of soft codes (..., K) where gradient passes through them."""

    @abstractmethod
    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        """Logits over the image codes.

        Args:
            hidden: Hidden states; with guidance those of the prompts, followed by as many without a prompt.
            guidance: w in `(1 + w) * cond - w * uncond`.

        Shapes:
            hidden (B, ..., D), or (2 B, ..., D) with guidance; returns (B, ..., K).
        """

    @abstractmethod
    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) over the text vocabulary of hidden states (..., D)."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...)."""
        return self.language_model.embed_tokens(ids)

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None = None) -> Tensor:
        """Hidden states of new tokens.

        Shapes:
            embeds (B, S, D), mask (B, 1, S, P + S) bool, positions (B, S); returns (B, S, D).
        """
        model = self.language_model
        kwargs = {"attention_mask": mask, "position_embeddings": model.rotary_emb(embeds, positions)}
        return model.norm(run_layers(model.layers, embeds, cache, self.gradient_checkpointing, **kwargs))

    def incremental_decoder(
        self, prefix: Prefix, max_new_tokens: int, static_shapes: bool = False
    ) -> IncrementalDecoder:
        """What computes one more token of each sequence at a time.

        Override it for a faster one; `LlamaDecoder` takes transformers' Llama layers.

        Args:
            prefix: What comes first.
            max_new_tokens: Most tokens that follow.
            static_shapes: Whether every step must have the same shapes, for `torch.compile` and CUDA graphs.

        Raises:
            ValueError: this decoder has no static shapes.
        """
        if static_shapes:
            raise ValueError(f"{type(self).__name__} has no decoder of static shapes; override incremental_decoder")
        return IncrementalDecoder(self, prefix, max_new_tokens)

    def train(self, mode: bool = True) -> "CausalTransformer":
        """Stay in evaluation mode: dropout is off in training, too."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the model computes. Weights may be elsewhere, such as shards on the CPU."""
        return next(chain(self.buffers(), self.parameters())).device

    def checkpointed(self, function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """Call a function, with gradient checkpointing where it is on."""
        return checkpointed(function, *args, gradient_checkpointing=self.gradient_checkpointing)

    def code_log_probs(self, hidden: Tensor, codes: Tensor, guidance: float, temperature: float) -> Tensor:
        """Log-probabilities of codes, a chunk of positions at a time, so that few logits are in memory at once.

        Shapes:
            hidden (B or 2 B, N, D), codes (B, N); returns (B, N), nats.
        """

        def score(hidden: Tensor, codes: Tensor) -> Tensor:
            logits = self.code_logits(hidden, guidance).float() / (temperature or 1.0)
            return -F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape)

        size = max(1, CHUNK_SIZE // len(codes))
        chunks = zip(hidden.split(size, 1), codes.split(size, 1), strict=True)
        return torch.cat([self.checkpointed(score, *chunk) for chunk in chunks], 1)


class SharedVocabularyTransformer(CausalTransformer):
    """A causal transformer whose image codes are tokens of its text vocabulary, as in Chameleon and Emu3.

    Args:
        model: A model with transformers' `get_decoder()` and `get_output_embeddings()`.
        code_ids: Token id of each image code: consecutive ids in any order.
        gradient_checkpointing: As for `CausalTransformer`.

    Raises:
        ValueError: the ids are not consecutive.
    """

    model: Any
    permutation: Tensor | None

    def __init__(self, model: nn.Module, code_ids: Sequence[int], gradient_checkpointing: bool = True) -> None:
        super().__init__(gradient_checkpointing)
        first, in_order = min(code_ids), list(range(min(code_ids), min(code_ids) + len(code_ids)))
        if sorted(code_ids) != in_order:
            ids = f"{len(code_ids)} image codes have ids from {first} to {max(code_ids)}"
            raise ValueError(f"{ids}: expected consecutive ids")
        permutation = None if list(code_ids) == in_order else torch.tensor(code_ids, device="cpu") - first
        self.model, self.columns = model, slice(first, first + len(code_ids))
        self.register_buffer("permutation", permutation, persistent=False)
        self.eval()

    @property
    @override
    def language_model(self) -> Any:
        return self.model.get_decoder()

    @property
    def lm_head(self) -> nn.Linear:
        """The head, over text and codes."""
        return self.model.get_output_embeddings()

    @property
    @override
    def float32_heads(self) -> Sequence[nn.Module]:
        return (self.lm_head,)

    @override
    def embed_codes(self, codes: Tensor) -> Tensor:
        if codes.is_floating_point():
            table = self.language_model.embed_tokens.weight[self.columns]
            table = table if self.permutation is None else table[self.permutation]
            return codes.to(table.dtype) @ table
        codes = codes if self.permutation is None else self.permutation[codes]
        return self.embed(codes + self.columns.start)

    @override
    def code_logits(self, hidden: Tensor, guidance: float = 0.0) -> Tensor:
        if guidance:  # the head is affine: guiding its input guides the logits, at half the cost
            cond, uncond = hidden.chunk(2)
            hidden = guide(cond, uncond, guidance).to(hidden.dtype)
        bias = None if self.lm_head.bias is None else self.lm_head.bias[self.columns]
        weight = self.lm_head.weight[self.columns]
        logits = float32_logits(partial(F.linear, weight=weight, bias=bias), hidden)
        return logits if self.permutation is None else logits[..., self.permutation]

    @override
    def text_logits(self, hidden: Tensor) -> Tensor:
        return float32_logits(self.lm_head, hidden)
