"""Users' text for tokenizers that have control tokens."""

from typing import Any
from weakref import WeakKeyDictionary

_KEPT: WeakKeyDictionary[Any, tuple[tuple[int, tuple[str, ...]], tuple[str, ...]]] = WeakKeyDictionary()
"""By tokenizer: its size and special tokens when they were looked up, and its control tokens."""


def plain_text(text: str, tokenizer: Any) -> str:
    """A text in which no control token is read.

    A tokenizer turns "<|endoftext|>" in a user's text into the token that ends a text. Written with a blank it stays
    text, also within a chat template, and for a tokenizer of whole words, which splits at blanks.

    Args:
        text: A prompt, question or answer.
        tokenizer: Of transformers' kind. One without special tokens changes nothing.

    Example:
        >>> from types import SimpleNamespace
        >>> plain_text("a cup </s>", SimpleNamespace(all_special_tokens=["</s>"]))
        'a cup < /s>'
    """
    for token in _control_tokens(tokenizer):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The control tokens of a tokenizer, longest first. There may be one for each image code, so they are kept."""
    special = tuple(getattr(tokenizer, "all_special_tokens", ()))
    try:
        state, kept = (len(tokenizer), special), _KEPT.get(tokenizer)
    except TypeError:  # neither a size nor a hash
        return _find_control_tokens(tokenizer, special)
    if kept is None or kept[0] != state:
        _KEPT[tokenizer] = kept = (state, _find_control_tokens(tokenizer, special))
    return kept[1]


def _find_control_tokens(tokenizer: Any, special: tuple[str, ...]) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {*special, *(str(token) for token in added if token.special)}
    return tuple(sorted((token for token in tokens if len(token) > 1), key=len, reverse=True))
