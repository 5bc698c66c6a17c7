"""Which answers mean the same: the words of an answer, without what the evaluation of VQA takes away."""

import re
from collections.abc import Sequence
from functools import cache

from unirl.prompts.words import NUMBERS
from unirl.unicode import fold, marks, normalize_text

YES, NO = "yes", "no"
_ARTICLES = {"a", "an", "the"}
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS[:11])}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@cache
def _words() -> re.Pattern[str]:
    letter = rf"[^\W_{marks()}]"
    more = rf"(?:{letter}|[{marks()}])*"
    return re.compile(rf"(?:(?<!\w)-(?=\d))?(?:\d+(?:[.,]\d+)+|{letter}{more}(?:'{letter}{more})*)")


def answer_words(text: str) -> list[str]:
    """The words of an answer that count: case, punctuation, articles and the spelling of numbers to ten do not.

    An answer of articles or punctuation only, such as the letter of a choice or a sign, is these.

    Args:
        text: An answer, in any script.

    Source: the evaluation of VQA (Antol et al. 2015, arXiv 1505.00468), which also takes number words as digits.

    Example:
        >>> answer_words("The two red cups."), answer_words("-1,000.5"), answer_words("A"), answer_words("+")
        (['2', 'red', 'cups'], ['-1000.5'], ['a'], ['+'])
    """
    words = _words().findall(_THOUSANDS.sub("", fold(text)))
    if not words:
        return normalize_text(text).split()
    return [_DIGITS.get(word, word) for word in words if word not in _ARTICLES] or words


def matches_answer(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer has the words of a right one: case, punctuation, articles and number words do not matter.

    Args:
        answer: The model's. An empty one is never right.
        accepted: Right answers. Of "yes" and "no" the first word of the answer counts.

    Example:
        >>> [matches_answer(text, ["yes", "a cup"]) for text in ("Yes, there is.", "Cup!", "no", "")]
        [True, True, False, False]
    """
    given = answer_words(answer)
    closed = ([YES], [NO])
    return bool(given) and any(
        given == right or (right in closed and given[:1] == right) for right in map(answer_words, accepted)
    )


def yes_or_no(text: str) -> str:
    """Yes or no, where a text begins with that word, or else nothing.

    Args:
        text: An answer.

    Example:
        >>> yes_or_no("Yes, there is."), yes_or_no("none")
        ('yes', '')
    """
    first = "".join(answer_words(text)[:1])
    return first if first in (YES, NO) else ""
