"""English words, as far as prompts and short answers need them: plurals, articles, numbers, keywords."""

import re

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
"""Number words, each at its own index."""

STOP_WORDS = frozenset(
    (
        *("a", "an", "the", "is", "are", "was", "were", "be", "and", "there", "this", "that", "these", "those"),
        *("it", "its", "of", "to", "with", "pair", "pairs"),
    )
)
"""Words an answer is not judged by. "left", "on", "no", "none" and "zero" say something, so they are not here;
"pair" is, because "a pair of scissors" and "scissors" are one answer."""

PLURALS = {
    **{"person": "people", "man": "men", "woman": "women", "child": "children"},
    **{"foot": "feet", "tooth": "teeth", "goose": "geese", "mouse": "mice"},
    **{"knife": "knives", "leaf": "leaves", "loaf": "loaves", "shelf": "shelves", "wolf": "wolves", "scarf": "scarves"},
    **{"sheep": "sheep", "deer": "deer", "fish": "fish"},
    **{"tomato": "tomatoes", "potato": "potatoes", "mango": "mangoes", "hero": "heroes"},
    **{"cookie": "cookies", "movie": "movies", "zombie": "zombies"},
    **{"axe": "axes", "ski": "skis", "taxi": "taxis", "kiwi": "kiwis", "broccoli": "broccolis"},
    **{"lens": "lenses", "gas": "gases", "canvas": "canvases"},
}
"""Plurals that the rules of `plural` and `normalize` would get wrong in one direction or the other."""

_SINGULARS = {many: one for one, many in PLURALS.items()}
_VOWELS = "aeiou"
_YOU_SOUND = ("uni", "uku", "eu", "use", "one")
_SILENT_H = ("hour", "honest", "heir")
_DIGITS = {str(value): word for value, word in enumerate(NUMBERS)}
_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b")


def article(phrase: str) -> str:
    """A phrase behind its indefinite article, chosen by sound rather than by letter.

    Args:
        phrase: A noun in the singular, with whatever adjectives stand before it.

    Example:
        >>> [article(phrase) for phrase in ("apple", "red apple", "unicycle", "umbrella", "hourglass")]
        ['an apple', 'a red apple', 'a unicycle', 'an umbrella', 'an hourglass']
    """
    sounds_open = phrase.startswith(_SILENT_H) or (phrase[:1] in _VOWELS and not phrase.startswith(_YOU_SOUND))
    return f"{'an' if sounds_open else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of a noun; of several words the last one changes.

    Args:
        noun: A noun in the singular, lower case.

    Example:
        >>> [plural(noun) for noun in ("wine glass", "person", "knife", "butterfly", "sheep")]
        ['wine glasses', 'people', 'knives', 'butterflies', 'sheep']
    """
    before, space, last = noun.rpartition(" ")
    return before + space + (PLURALS.get(last) or _regular_plural(last))


def _regular_plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in _VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def normalize(word: str) -> str:
    """One form for a word, its plural, and the digits that spell it.

    Only sameness counts: "scissors" becomes "scissor" wherever it stands. Forms that GenEval's prompts misspell, such
    as "benchs" and "persons", come out like the right ones.

    Args:
        word: A single word in any case, without punctuation.

    Example:
        >>> [normalize(word) for word in ("Knives", "knife", "3", "buses", "bus", "people")]
        ['knife', 'knife', 'three', 'bus', 'bus', 'person']
    """
    word = word.lower()
    if word in _DIGITS:
        return _DIGITS[word]
    return _SINGULARS.get(word) or _regular_singular(word)


def _regular_singular(word: str) -> str:
    if word in PLURALS or word == "yes" or len(word) < 3 or not word.endswith("s"):
        return word
    if word.endswith(("ss", "us", "is")):  # glass, bus, tennis
        return word
    if word.endswith("ies") and len(word) > 4:  # cherries, but not ties and pies
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if word.endswith("uses") and not word.endswith("ouses"):  # buses, but not houses and mouses
        return word[:-2]
    return word[:-1]


def keywords(text: str) -> list[str]:
    """The words of a text that carry meaning, in order and normalized; repeated words stay repeated.

    Args:
        text: Any text; case and punctuation do not matter.

    Example:
        >>> keywords("There are 4 bowls, and a pair of scissors!")
        ['four', 'bowl', 'scissor']
    """
    words = _WORD.findall(_POSSESSIVE.sub("", text.lower()))
    normalized = [normalize(word) for word in words if word not in STOP_WORDS]
    # A plural such as "its" of "it" must not come back as a keyword after it lost its s.
    return [word for word in normalized if word not in STOP_WORDS]
