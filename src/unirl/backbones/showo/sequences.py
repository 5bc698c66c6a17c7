"""Show-o's sequences and masks, as id tensors: pure functions."""

from collections.abc import Sequence

import torch
from torch import Tensor

QUESTION = "USER: \n{question} ASSISTANT:"


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Stack rows of different lengths, padded on the left. (B, longest) int64."""
    width = max(map(len, rows))
    return torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Stack rows of different lengths, padded on the right. (B, longest) int64."""
    width = max(map(len, rows))
    return torch.tensor([list(row) + [pad] * (width - len(row)) for row in rows], dtype=torch.long)


def prompt_row(text: Sequence[int], task: int, end: int, longest: int) -> list[int]:
    """`[t2i, sot, text, eot]`; a long prompt is cut and keeps its end mark.

    Args:
        text: Token ids of the prompt.
        task: Id of the task token.
        end: End-of-text id, which also begins the text.
        longest: Most tokens without the task token.

    Example:
        >>> prompt_row([5, 6, 7], task=1, end=0, longest=4)
        [1, 0, 5, 6, 0]
    """
    return [task, end, *text[: longest - 2], end]


def causal_mask(keys: Tensor) -> Tensor:
    """Each position sees itself and earlier ones that are not pads.

    Args:
        keys: True where the token is not a pad.

    Shapes:
        keys (B, T) bool; returns (B, 1, T, T) bool, True = may attend.
    """
    length = keys.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=keys.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=keys.device)
    return ((lower & keys[:, None, :]) | itself)[:, None]


def suffix_mask(prefix_keys: Tensor, suffix: Tensor) -> Tensor:
    """Mask of the rows that follow a prefix.

    Args:
        prefix_keys: True where the prefix may be seen.
        suffix: The suffix's view of itself.

    Shapes:
        prefix_keys (B, P), suffix (B or 1, 1, S, S); returns (B, 1, S, P + S) bool.
    """
    rows = prefix_keys[:, None, None, :].expand(-1, 1, suffix.shape[2], -1)
    return torch.cat((rows, suffix.expand(len(rows), -1, -1, -1)), dim=-1)


def generation_mask(ids: Tensor, pad: int, soi: int) -> Tensor:
    """The whole mask of a generation sequence: causal text, image in both directions, pads unseen but by pads.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True = may attend.
    """
    keys = ids != pad
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == soi).cumsum(1).bool()
    seen = (lower | image[:, :, None]) & keys[:, None, :]
    return torch.where(keys[:, :, None], seen, lower & ~keys[:, None, :])[:, None]


def understanding_mask(ids: Tensor, eoi: int) -> Tensor:
    """The whole mask of an understanding sequence: causal, and everybody sees all up to the end of the image.

    Shapes:
        ids (B, T); returns (B, 1, T, T) bool, True = may attend.
    """
    length = ids.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == eoi).flip(1).cumsum(1).flip(1).bool()
    return (lower | image[:, None, :])[:, None]
