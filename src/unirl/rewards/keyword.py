"""The keyword reward: how many words of the correct answer an answer contains."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.prompts.words import keywords
from unirl.rewards.base import Reward, check_not_blank, reaches
from unirl.types import Answers, Example, Images


class Keyword(Reward):
    """Counts the keywords of the correct answer that the model's answer contains.

    Of "four bowls", the answer "two chairs" has 0, "three bowls" 1 and "four bowls" 2. Keywords are whole words; case,
    punctuation, plurals, digits and the form of Unicode make no difference. Each keyword is counted at most
    once. Extra words cost nothing: an answer that lists all numbers has the full score, so monitor the length of
    answers. Of scripts that do not part words by spaces, such as Chinese and Thai, the letters are compared.

    A sample is accepted if all keywords are found.

    Args:
        weight: Weight in the sum of all rewards.
        normalize: Divide by the number of keywords, so that long answers do not score higher than short ones.
        ordered: Count the longest common subsequence, so that "blue and red" does not equal "red and blue".
        standardize: As in `Reward`.

    Source: UniRL (arXiv 2505.23380), where the reward is the plain count (`normalize=False`).

    Example:
        >>> ids = torch.zeros(2, 1, dtype=torch.long)
        >>> answers = Answers(ids, ids.bool(), ["three bowls", "4 Bowls."])
        >>> Keyword().score([Example("", "", "four bowls", "counting")] * 2, Images(ids), answers).tolist()
        [0.5, 1.0]
    """

    def __init__(
        self, weight: float = 1.0, normalize: bool = True, ordered: bool = False, standardize: bool = False
    ) -> None:
        super().__init__(weight, standardize)
        self.normalize = normalize
        self.ordered = ordered

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The number of keywords found in each answer, or their share.

        Shapes:
            returns (B,), float32.

        Raises:
            UserError: a correct answer has no keywords.
        """
        scores = [self._score(example, text) for example, text in zip(examples, answers.text, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=answers.ids.device)

    @override
    def check_example(self, example: Example) -> None:
        check_not_blank(example, "question")
        if not keywords(example.answer):
            raise UserError(_no_keyword(example))

    def accepts(self, examples: Sequence[Example], scores: Tensor) -> Tensor:
        """Whether all keywords were found.

        Shapes:
            scores (B,); returns (B,) bool.
        """
        full = [1.0 if self.normalize else float(len(keywords(example.answer))) for example in examples]
        return reaches(scores, torch.tensor(full, dtype=torch.float32, device=scores.device))

    def _score(self, example: Example, text: str) -> float:
        target = keywords(example.answer)
        if not target:
            raise UserError(f"prompt {example.prompt!r}: {_no_keyword(example)}; correct it, or use another reward")
        matches = count_matches(target, keywords(text), self.ordered)
        return matches / len(target) if self.normalize else float(matches)


def _no_keyword(example: Example) -> str:
    return f"the answer {example.answer!r} has no keyword, such as a noun, number, color or relation"


def count_matches(target: Sequence[str], predicted: Sequence[str], ordered: bool = False) -> int:
    """How many target words are among the predicted ones, each used once.

    Args:
        target: The words to find.
        predicted: The words to search.
        ordered: Count the longest common subsequence.

    Example:
        >>> count_matches(["red", "blue"], ["blue", "red"])
        2
        >>> count_matches(["red", "blue"], ["blue", "red"], ordered=True)
        1
    """
    if not ordered:
        return (Counter(target) & Counter(predicted)).total()
    # lengths[j]: longest common subsequence of the target words so far and the first j predicted words.
    lengths = [0] * (len(predicted) + 1)
    for word in target:
        diagonal = 0
        for j, other in enumerate(predicted, start=1):
            above = lengths[j]
            lengths[j] = diagonal + 1 if word == other else max(above, lengths[j - 1])
            diagonal = above
    return lengths[-1]
