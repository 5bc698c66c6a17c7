"""What takes the place of a tokenizer where only the sizes of a checkpoint are known: lengths are about right."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOKENS_PER_WORD = 1.5
"""More than the average of English text, punctuation included."""
CHAT_TOKENS = 8
"""Tokens that a chat template adds to a message."""
SYSTEM_TOKENS = 48
"""Tokens of a chat template before an image: a system prompt of two sentences."""


class PlaceholderTokenizer:
    """Texts as token ids of about the right number, which have no meaning.

    `Backbone.build(meta=True)` takes one where there is no tokenizer, so that a model of which only the sizes are known
    can be run on fake tensors.

    Example:
        >>> PlaceholderTokenizer()(["a red cup"])["input_ids"]
        [[1, 1, 1, 1, 1]]
    """

    eos_token_id = 0

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """Ids of each text; all are 1."""
        return {"input_ids": [[1] * round(TOKENS_PER_WORD * len(text.split()) + 0.5) for text in texts]}

    def decode(self, ids: object, **_: Any) -> str:
        """Always a word."""
        return "unknown"


class PlaceholderChat:
    """The same with a chat template, for backbones that read prompts and questions through one."""

    image_start_id = 2

    def __init__(self) -> None:
        self.tokenizer = PlaceholderTokenizer()
        self.eos_token_ids, self.image_context_ids = [0], [1] * SYSTEM_TOKENS

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each prompt within the template."""
        return [[1] * CHAT_TOKENS + ids for ids in self.tokenizer(prompts)["input_ids"]]

    question_ids = prompt_ids

    def unconditional_ids(self, prompt_ids: Sequence[int]) -> list[int]:
        """As many other ids."""
        return [3] * len(prompt_ids)

    def answer_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each answer."""
        return self.tokenizer(texts)["input_ids"]

    def decode_text(self, ids: object) -> str:
        """Always a word."""
        return self.tokenizer.decode(ids)


def placeholder_statistics() -> tuple[Tensor, Tensor]:
    """Mean 0 and standard deviation 1 of pixels, where a processor would say them.

    Shapes:
        returns two of (3, 1, 1).

    Example:
        >>> placeholder_statistics()[0].flatten().tolist()
        [0.0, 0.0, 0.0]
    """
    return torch.zeros(3, 1, 1, dtype=torch.float32), torch.ones(3, 1, 1, dtype=torch.float32)
