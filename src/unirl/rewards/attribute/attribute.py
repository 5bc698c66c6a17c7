"""The attribute reward: the share of the correct answer's facts that an answer states."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.rewards.attribute.facts import extract_facts, recall
from unirl.rewards.base import Reward, check_not_blank
from unirl.types import Answers, Example, Images, Item


class Attribute(Reward):
    """The share of the correct answer's facts that the model's answer states, in [0, 1].

    Attributes are bound to objects: "the cup is blue and the dog is red" states nothing of "the cup is red and the dog
    is blue", although `Keyword` finds every word. The order of clauses, articles, plurals, digits and synonyms of
    colors make no difference.

    A part of an object and a compound are other objects: neither "the cup's handle is red" nor "a red cup holder"
    states a red cup. "One of the cups is red" states neither a number nor a color of the cups.

    Contradictory facts are not stated ("two or three cups"), so listing numbers, colors or relations gains nothing.
    Listing objects does: an image may show more than the prompt asks for, so "circle, square, ring" states all of
    "ring". "A circle or a ring" states neither.

    A sample is accepted if all facts are stated.

    Args:
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.

    Source: UniRL (arXiv 2505.23380) matches keywords, which ignores binding.

    Example:
        >>> ids = torch.zeros(2, 1, dtype=torch.long)
        >>> answers = Answers(ids, ids.bool(), ["a red cup and a blue dog", "a blue cup and a red dog"])
        >>> example = Example("", "", "The cup is red and the dog is blue", "color_attr")
        >>> Attribute().score([example] * 2, Images(ids), answers).tolist()
        [1.0, 0.0]
    """

    accept_threshold = 1.0

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The share of stated facts.

        Shapes:
            returns (B,), float32.

        Raises:
            UserError: a correct answer states no fact.
        """
        scores = [_score(example, text) for example, text in zip(examples, answers.text, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=answers.ids.device)

    @override
    def check_example(self, example: Example) -> None:
        check_not_blank(example, "question")
        if not _states_facts(example.answer, tuple(item.name for item in example.objects)):
            raise UserError(_no_fact(example))


@lru_cache(100_000)  # many lines of a file have the same answer
def _states_facts(answer: str, objects: tuple[str, ...]) -> bool:
    return bool(extract_facts(answer, [Item(name) for name in objects]))


def _no_fact(example: Example) -> str:
    return f"the answer {example.answer!r} states no fact, such as an object, number, color or relation"


def _score(example: Example, text: str) -> float:
    target = extract_facts(example.answer, example.objects)
    if not target:
        raise UserError(f"prompt {example.prompt!r}: {_no_fact(example)}; correct it, or use another reward")
    return recall(target, extract_facts(text, example.objects))
