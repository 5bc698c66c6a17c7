"""Users' text for tokenizers that have control tokens."""

from typing import Any


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
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    tokens = {*getattr(tokenizer, "all_special_tokens", ()), *(str(token) for token in added if token.special)}
    for token in sorted(tokens, key=len, reverse=True):
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
