"""How many of the right answer's words does the model's answer contain?"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.prompts.words import keywords
from unirl.rewards.base import Reward, reaches
from unirl.types import Answers, Example, Images


class Keyword(Reward):
    """Counts the keywords of the right answer that the model's answer contains.

    Of "four bowls", the answer "two chairs" has 0, "three bowls" 1 and "four bowls" 2. Words count whole and in any
    order; case, punctuation, plurals and digits for number words make no difference; each keyword is found at most
    once. Extra words cost nothing: an answer that lists every number gets full marks, so watch the answers' lengths.
    It accepts full marks: every keyword, with or without `normalize`.

    Args:
        weight: Its share in the sum of all rewards.
        normalize: Divide by the number of keywords, so that long answers pay no more than short ones.
        ordered: Keywords must come in the right answer's order (the longest common subsequence counts), so that
            "blue and red" is not the same as "red and blue".
        standardize: Compare within groups in standard deviations.

    Source: UniRL, arXiv 2505.23380; its reward is the plain count (`normalize=False`).
    """

    def __init__(
        self, weight: float = 1.0, normalize: bool = True, ordered: bool = False, standardize: bool = False
    ) -> None:
        super().__init__(weight, standardize)
        self.normalize = normalize
        self.ordered = ordered

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The keywords found in each answer, or their share.

        Shapes:
            returns (B,), float32.

        Raises:
            UserError: A right answer has no keyword, so no answer to it could be told from another.
        """
        scores = [self._one(example, text) for example, text in zip(examples, answers.text, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=answers.ids.device)

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor:
        """Where every keyword was found, however they are counted.

        Shapes:
            scores (B,); returns (B,) bool.
        """
        full = [1.0 if self.normalize else float(len(keywords(example.answer))) for example in examples]
        return reaches(scores, torch.tensor(full, device=scores.device))

    def _one(self, example: Example, text: str) -> float:
        wanted = keywords(example.answer)
        if not wanted:
            raise UserError(
                f"no keyword in the answer {example.answer!r} of the prompt {example.prompt!r}: the keyword reward "
                "cannot score it; give it an answer with a noun, number, color or relation, or use another reward"
            )
        found = hits(wanted, keywords(text), self.ordered)
        return found / len(wanted) if self.normalize else float(found)


def hits(wanted: Sequence[str], got: Sequence[str], ordered: bool = False) -> int:
    """How many wanted words are among those got, each used once.

    Args:
        wanted: The words to find.
        got: The words to look among.
        ordered: Whether they must come in the same order.

    Example:
        >>> hits(["red", "blue"], ["blue", "red"]), hits(["red", "blue"], ["blue", "red"], ordered=True)
        (2, 1)
    """
    if not ordered:
        return (Counter(wanted) & Counter(got)).total()
    # Longest common subsequence: best[j] is its length within the wanted words so far and the first j got.
    best = [0] * (len(got) + 1)
    for word in wanted:
        diagonal = 0
        for j, other in enumerate(got, start=1):
            above = best[j]
            best[j] = diagonal + 1 if word == other else max(above, best[j - 1])
            diagonal = above
    return best[-1]
