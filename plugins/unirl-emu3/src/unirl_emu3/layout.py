"""Where image codes are in Emu3's vocabulary, and how they lie in a sequence."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unirl.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A picture in a sequence: `height` lines of `width` codes, each line closed by a token that nobody decides.

    Args:
        height: Lines of codes.
        width: Codes in a line.
        first: Token of code 0; the others follow it.
        count: How many codes there are.
        end_of_line: The token that closes a line.

    Example:
        >>> layout = Layout(2, 3, first=100, count=8, end_of_line=7)
        >>> layout.codes, layout.places.tolist()
        (6, [0, 1, 2, 4, 5, 6])
    """

    height: int
    width: int
    first: int
    count: int
    end_of_line: int

    @property
    def codes(self) -> int:
        """Decisions a picture takes."""
        return self.height * self.width

    @property
    def columns(self) -> slice:
        """The codes' part of embedding and head."""
        return slice(self.first, self.first + self.count)

    @property
    def places(self) -> Tensor:
        """From which row of the picture, counted from the token that begins it, each code is drawn. (N,)"""
        code = torch.arange(self.codes)
        return code + code // self.width


def visual_tokens(vocabulary: dict[str, int], count: int) -> int:
    """The token of code 0, if codes follow each other in the vocabulary.

    Args:
        vocabulary: Of the checkpoint's config.json (`vocabulary_map`).
        count: Entries of its codebook.

    Raises:
        UserError: tokens are missing, or in another order.

    Example:
        >>> visual_tokens({"<|visual token 000000|>": 7, "<|visual token 000001|>": 8}, 2)
        7
    """
    ids = [vocabulary.get(f"<|visual token {code:06d}|>") for code in range(count)]
    first = ids[0]
    if first is None or ids != list(range(first, first + count)):
        wrong = next((c for c, i in enumerate(ids) if i is None or first is None or i != first + c), 0)
        raise UserError(
            f"vocabulary_map: <|visual token {wrong:06d}|> is {ids[wrong]}; the {count} codes of the codebook "
            "must be there, one after another"
        )
    return first
