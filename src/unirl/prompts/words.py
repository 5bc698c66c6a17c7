"""English words of prompts and short answers: plurals, articles, numbers, keywords. Inflection is inflect's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inflect

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
"""Number words from 0 to 20, each at its own index."""

STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "is", "are", "was", "were", "be", "and", "there", "this", "that", "these", "those"),
        *("it", "its", "of", "to", "with", "pair", "pairs"),
    )
)
"""Words that are no keywords. "left", "on", "no", "none" and "zero" carry meaning and are not among them; "pair" is,
because "a pair of scissors" and "scissors" are the same answer."""

_NOT_PLURAL = frozenset(
    (
        *("as", "has", "was", "yes", "plus", "news", "gas", "lens", "canvas", "atlas", "alias", "bias"),
        *("we", "they", "them"),
    )
)
"""Words that inflect takes for plurals, besides those that end in -ss, -us and -is."""
_SINGULARS = {
    **{"broccolis": "broccoli", "kiwis": "kiwi", "skis": "ski", "taxis": "taxi"},
    **{"mouses": "mouse", "scissors": "scissor"},
}
"""Plurals in -is, "mouses" as GenEval's prompts have it, and "scissors", of which an answer may have the singular."""
_NORMALIZED = {str(value): word for value, word in enumerate(NUMBERS)} | _SINGULARS
_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b")


@cache
def _engine() -> "inflect.engine":
    with _without_typeguard():
        import inflect  # noqa: PLC0415 - runs that need no words do not import it
    return inflect.engine()


@contextmanager
def _without_typeguard() -> Iterator[None]:
    """Import inflect as it is written. Its decorator from typeguard compiles it once more, which takes 1.4 s of 1.5."""
    try:
        typeguard: Any = import_module("typeguard")
    except ImportError:  # other releases of inflect do not use it
        yield
        return
    typechecked = typeguard.typechecked
    typeguard.typechecked = lambda target: target
    try:
        yield
    finally:
        typeguard.typechecked = typechecked


@lru_cache(10_000)
def article(phrase: str) -> str:
    """A phrase with its indefinite article, which depends on the sound.

    Args:
        phrase: A noun in the singular, perhaps with adjectives before it.

    Example:
        >>> [article(phrase) for phrase in ("apple", "red apple", "unicycle", "umbrella", "hourglass")]
        ['an apple', 'a red apple', 'a unicycle', 'an umbrella', 'an hourglass']
    """
    return str(_engine().a(phrase))


@lru_cache(10_000)
def plural(noun: str) -> str:
    """The plural of a noun. Of several words, the last one changes.

    Args:
        noun: A noun in the singular, lower case.

    Example:
        >>> [plural(noun) for noun in ("wine glass", "person", "knife", "butterfly", "sheep")]
        ['wine glasses', 'people', 'knives', 'butterflies', 'sheep']
    """
    return str(_engine().plural_noun(noun))


@lru_cache(10_000)
def normalize_word(word: str) -> str:
    """A form that is the same for a word, its plural, and the digits of a number.

    It need not be a word: "scissors" becomes "scissor". Misspelled plurals of GenEval's prompts, such as "benchs" and
    "persons", are normalized like the correct ones.

    Args:
        word: A single word in any case, without punctuation.

    Example:
        >>> [normalize_word(word) for word in ("Knives", "knife", "3", "buses", "bus", "people")]
        ['knife', 'knife', 'three', 'bus', 'bus', 'person']
    """
    word = word.lower()
    if word in _NORMALIZED:
        return _NORMALIZED[word]
    if len(word) < 3 or word in _NOT_PLURAL or word.endswith(("ss", "us", "is")):
        return word
    return str(_engine().singular_noun(word) or word)


def keywords(text: str) -> list[str]:
    """The words of a text that carry meaning, normalized, in order, with repetitions.

    Args:
        text: Any text. Case and punctuation make no difference.

    Example:
        >>> keywords("There are 4 bowls, and a pair of scissors!")
        ['four', 'bowl', 'scissor']
    """
    words = _WORD.findall(_POSSESSIVE.sub("", text.lower()))
    normalized = [normalize_word(word) for word in words if word not in STOP_WORDS]
    return [word for word in normalized if word not in STOP_WORDS]  # a singular may be a stop word, too
