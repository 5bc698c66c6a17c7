"""Show-o's sequences and masks, as id tensors: pure functions."""

from collections.abc import Sequence

import torch
from torch import Tensor

QUESTION = "USER: \n{question} ASSISTANT:"


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
