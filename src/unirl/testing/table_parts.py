"""What `TableBackbone` is made of: text as letters and bags of words, pictures as squares of color, and a layer."""

from collections.abc import Sequence
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unirl.decoding.prefix import pad_right
from unirl.errors import UserError

END = 0
"""The end-of-text id, which also begins an answer."""
LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789"
BUCKETS = 64
PIXELS = 4
"""Side of a code's square, in pixels."""


class Layer(nn.Module):
    """The repeated block: each row by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return rows + torch.tanh(self.inner(self.norm(rows)))


class Words(nn.Module):
    """Texts as means of their words, which share a few buckets; an empty text is 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BUCKETS, width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of B texts."""
        counts = torch.zeros(len(texts), BUCKETS)
        for row, text in zip(counts, texts, strict=True):
            for word in text.split():
                row[crc32(word.encode()) % BUCKETS] += 1
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return shares.to(self.embedding.weight) @ self.embedding.weight


class Letters(nn.Module):
    """Answers, letter by letter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, width)
        self.head = nn.Linear(width, len(LETTERS) + 1)

    def read(self, ids: Tensor) -> list[str]:
        """Texts of ids (B, T)."""
        return ["".join(LETTERS[i - 1] for i in row if i != END).strip() for row in ids.tolist()]

    def write(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask, each (B, T), of texts.

        Raises:
            UserError: a letter that the model does not know.
        """
        for text in texts:
            if strange := set(text) - set(LETTERS):
                raise UserError(f"answer {text!r} has {min(strange)!r}; this model writes a-z, 0-9 and blanks")
        ids, mask = pad_right([[*(LETTERS.index(letter) + 1 for letter in text), END] for text in texts], END)
        return ids.to(self.head.weight.device), mask.to(self.head.weight.device)


class Palette(nn.Module):
    """The image tokenizer: a code is a square of one color."""

    def __init__(self, codes: int, side: int) -> None:
        super().__init__()
        self.side, self.size = side, side * PIXELS
        self.colors = nn.Parameter(torch.rand(codes, 3))

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of one-hot or soft codes (B, N, K)."""
        squares = (codes @ self.colors).mT.unflatten(2, (self.side, self.side))
        return F.interpolate(squares, scale_factor=PIXELS).clamp(0, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        """The nearest color of each square: (B, 3, H, W) -> (B, N)"""
        squares = F.avg_pool2d(pixels, PIXELS).flatten(2).mT
        return torch.cdist(squares, self.colors.expand(len(pixels), -1, -1)).argmin(-1)
