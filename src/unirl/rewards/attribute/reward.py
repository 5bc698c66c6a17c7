"""How much of what the right answer states does the model's answer state, and of the right things?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.rewards.attribute import agreement, facts
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class Attribute(Reward):
    """The share of the right answer's facts that the model's answer states, in [0, 1]; binding counts.

    "The cup is blue and the dog is red" has nothing of "the cup is red and the dog is blue", though keyword matching
    finds every word. The order of clauses, articles, plurals, digits for number words and other names of a color make
    no difference. A fact that the answer contradicts ("two or three cups") is not stated, so listing numbers, colors
    or places pays nothing. Listing things does pay: a picture may show more than was asked for, so things that nobody
    asked for cost nothing, and "circle, square, ring" has all of "ring". "A circle or a ring" has nothing of it.

    It accepts full marks.

    Source: UniRL (arXiv 2505.23380) matches keywords; that matching misses binding is why this reward is here.
    """

    accept_threshold = 1.0

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The share of matched facts.

        Shapes:
            returns (B,), float32.

        Raises:
            UserError: A right answer states nothing.
        """
        scores = [_one(example, text) for example, text in zip(examples, answers.text, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=answers.ids.device)


def _one(example: Example, text: str) -> float:
    wanted = facts(example.answer, example.objects)
    if not wanted:
        raise UserError(
            f"the answer {example.answer!r} of the prompt {example.prompt!r} states nothing that the attribute reward "
            "could look for; give it a thing, number, color or relation, or use another reward"
        )
    return agreement(wanted, facts(text, example.objects))
