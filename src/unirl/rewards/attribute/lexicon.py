"""Words of English answers by their role: naming, coloring, counting or placing an object, or connecting these."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import get_args

from unirl.prompts.words import NUMBERS, normalize_word
from unirl.rewards.attribute.nouns import Read, resolve_nouns
from unirl.rewards.attribute.roles import Kind, Stating, Word
from unirl.unicode import fold, marks

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
SYNONYMS = {
    **{"grey": "gray", "silver": "gray", "charcoal": "gray"},
    **{"violet": "purple", "lilac": "purple", "lavender": "purple"},
    **{"crimson": "red", "scarlet": "red", "maroon": "red", "navy": "blue", "azure": "blue", "cyan": "blue"},
    **{"golden": "yellow", "gold": "yellow", "tan": "brown", "beige": "brown"},
    **{"magenta": "pink", "fuchsia": "pink", "emerald": "green", "lime": "green", "ebony": "black", "ivory": "white"},
    **{"teal": "teal", "turquoise": "turquoise", "indigo": "indigo"},
}
"""Synonyms of colors. The last three are between two of `COLORS` and equal to neither."""
DIRECTIONS = {
    **{"left": ("horizontal", "left"), "right": ("horizontal", "right")},
    **{"above": ("vertical", "above"), "over": ("vertical", "above"), "top": ("vertical", "above")},
    **{"below": ("vertical", "below"), "under": ("vertical", "below"), "bottom": ("vertical", "below")},
    **{"beneath": ("vertical", "below"), "underneath": ("vertical", "below")},
}
"""Axis and direction of the words of spatial relations."""
PREPOSITIONS = frozenset(("above", "over", "below", "under", "beneath", "underneath"))
"""Relations that need no "of": the object that follows is the target."""
ATTRIBUTES: frozenset[Kind] = frozenset(get_args(Stating)) - {"object"}
"""Roles of words that state something about an object."""
NUMBERS_AND_COLORS: frozenset[Kind] = ATTRIBUTES - {"relation"}
"""Roles of words that state a number or a color."""


# A clause with a negation states something else: "not red", "at least two".
_KINDS: dict[Kind, str] = {
    "article": "a an the this these those another",
    "preposition": "of to from for on in at near next front beside behind between by",
    "with": "with has have having",
    "verb": "there i we you see can sits stands lies",
    "is": "is was be",
    "are": "are were",
    "both": "both",
    "its": "its whose",
    "it": "it",
    "which": "that which who",
    "scene": ": ( ) photo picture image photograph scene illustration frame view screen canvas background foreground "
    "center centre middle viewer camera",
    "separator": ", . ; & / | ! ? — – -- and or but while whereas then yet although though however plus",
    "negation": "not cannot never neither nor without hardly barely scarcely unable missing absent lacking lacks "
    "more less fewer least most instead rather impossible fails failed nowhere except invisible",
    "hedge": "maybe perhaps possibly either may might",
    "partial": "partof",
    "possessive": "'s",
    "ignored": "located positioned placed side pairs color colour colors colours colored coloured painted shade shades "
    "tone hue pair they them think probably sitting standing directly slightly just other also only respectively here "
    "what where how show shows showing shown depict depicts depicting contains containing features featuring displays "
    "displaying appears appear looks seems visible seen answer ca x very quite clearly definitely mostly mainly "
    "entirely completely exactly",
}
_WORDS: dict[str, Word] = {
    **{word: Word(kind, word) for kind, words in _KINDS.items() for word in words.split()},
    **{
        "\n": Word("separator", "."),
        "no": Word("count", "0"),
        "zero": Word("count", "0"),
        "single": Word("group", "1"),
    },
    **{word: Word("count", word) for word in ("some", "several", "many", "few", "numerous")},
    **{"dozen": Word("count", "12"), "hundred": Word("count", "100"), "thousand": Word("count", "1000")},
    **{color: Word("color", SYNONYMS.get(color, color)) for color in (*COLORS, *SYNONYMS)},
    **{direction: Word("relation", direction) for direction in DIRECTIONS},
}
OPENERS = frozenset(("yes", "sure", "okay", "ok", "well", "certainly"))
"""Words before an answer that are no part of it."""
PAIRED = frozenset(("skis", "ski", "scissors", "scissor", "sunglasses", "sunglass", "headphones", "headphone"))
"""Objects with two halves: "a pair of scissors" is one."""
_TWO = frozenset(("pair", "couple"))
_BEFORE_COLORS = frozenset(
    (
        *("dark", "light", "bright", "deep", "pale", "pastel", "vivid", "neon"),
        *("sky", "royal", "baby", "hot", "forest", "in"),
    )
)
"""Words that are ignored before a color: "sky blue", "in red"."""
_COMPOUND_NAMES: dict[tuple[str, ...], str] = {
    (first, last): f"{first} {last}"
    for first, last in (("hot", "dog"), ("prairie", "dog"), ("teddy", "bear"), ("gummy", "bear"), ("sea", "lion"))
}
"""Names whose last word alone is the name of another object."""
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_MORE_THAN_ONE = "|".join((*NUMBERS[2:], *_TENS, r"\d"))
_COMPOUND_NUMBER = rf"\b({'|'.join(_TENS)})[- ]({'|'.join(NUMBERS[1:10])})\b"
_NOUN_BEFORE_RIGHT = ("the", "its", "far", "upper", "lower", "top", "bottom")
_PREPOSITION_AFTER_RIGHT = (
    *("next", "beside", "by", "near", "behind", "in", "on", "at", "above", "over", "below", "under", "beneath"),
    *("between", "against"),
)
_NUMBER = rf"(?:{'|'.join((*NUMBERS[1:], *_TENS))}|\d+)"
_DETERMINER = r"(?:all )?(?:the|these|those)"
_PHRASES = (
    (r"n['’]t\b", " not"),
    (r"['’]s\b|(?<=s)['’](?= \w)", " 's "),
    (r"\w+-(?:shaped|like|sized|themed|style)\b", ""),
    (r"\bnone of (?=the\b|these\b|those\b|them\b|which\b)", " not "),
    # "two out of three cups" are three cups, and "one of the cups" gives no number
    (rf"\b{_NUMBER} (?:(?:out )?of (?:{_DETERMINER} )?|in )(?={_NUMBER}\b)", " partof "),
    (
        rf"\b(?:{_NUMBER}|some|several|many|few|most|half|part) (?:out )?of (?={_DETERMINER}\b|them\b|which\b)",
        " partof ",
    ),
    (rf"\bof which (?={_NUMBER}\b)", " , "),
    (r"\bas well as\b", ","),
    (r"\bfrom (?:left to right|right to left|top to bottom|bottom to top)\b", ""),
    # "right next to" is not a direction
    (rf"{''.join(f'(?<!{word} )' for word in _NOUN_BEFORE_RIGHT)}\bright (?={'|'.join(_PREPOSITION_AFTER_RIGHT)})", ""),
    (r"\b(?:facing|looking|pointing|turned)(?: to the)? (?:left|right)\b", ""),
    (r"\b(?:knocked|tipped|turned|fallen) over\b", ""),
    (r"(\d) ?\+", r"more than \1"),
    (rf"\b(?:over|under|nearly|almost|about|around|approximately|roughly|up to) (?={_MORE_THAN_ONE})", "maybe "),
    (r"\b(?:could|would) (?=be)", "may "),
)
"""Phrases that cannot be read word by word, and their replacements."""


def tokenize(text: str, names: Mapping[tuple[str, ...], str]) -> list[Word]:
    """The words of a text with their roles, without those that state nothing.

    Consecutive unknown words are one name. Before an object of the prompt, unknown words are adjectives.

    Args:
        text: Any text.
        names: The objects of the prompt by their `name_tokens`.

    Example:
        >>> [(word.kind, word.value) for word in tokenize("3 shiny dark blue cups", {("cup",): "cup"})]
        [('count', '3'), ('object', 'shiny'), ('color', 'blue'), ('object', 'cup')]
    """
    return resolve_nouns(list(_read(text, names)))


def _read(text: str, names: Mapping[tuple[str, ...], str]) -> Iterator[Read]:
    tokens = split(text)
    normalized = [normalize_word(token) for token in tokens]
    known = {**_COMPOUND_NAMES, **names} if names else {}
    longest_first = sorted(known, key=len, reverse=True)
    position, follows_name = 0, False
    while position < len(tokens):
        rest, normalized_rest = tokens[position:], normalized[position:]
        name = next((parts for parts in longest_first if tuple(normalized_rest[: len(parts)]) == parts), None)
        if name and rest[0] in COLORS and _is_adjective(rest[1:], normalized_rest[1:], known):
            name = None  # "an orange cup" has no orange
        word = Word("object", known[name], name in names) if name else _word(rest, normalized_rest[0], not names)
        if follows_name and _is_shade(rest):
            word = Word("object", normalized_rest[0])
        position += len(name) if name else 1
        follows_name = bool(name)
        yield Read(word, tokens[position - 1], follows_name)


def _is_shade(tokens: list[str]) -> bool:
    """Whether a shade is a thing, after the name of another one: "a lamp shade", but not "a lamp, a shade of red"."""
    return tokens[0] in ("shade", "shades") and tokens[1:2] != ["of"]


def split(text: str) -> list[str]:
    """Folded words and punctuation marks, with phrases replaced.

    Args:
        text: Any text.

    Example:
        >>> split("The dog's twenty-one cups aren't red.")
        ['the', 'dog', "'s", '21', 'cups', 'are', 'not', 'red', '.']
    """
    text = fold(text)
    for pattern, replacement in _PHRASES:
        text = re.sub(pattern, replacement, text)
    return _token_pattern().findall(re.sub(_COMPOUND_NUMBER, lambda m: str(_TENS[m[1]] + NUMBERS.index(m[2])), text))


@cache
def _token_pattern() -> re.Pattern[str]:
    return re.compile(rf"\d+(?=x\b|[^\W\d_]{{3}})|'s|[^\W_](?:[^\W_]|[{marks()}])*|--|[,.;&:()/|!?—–\n]")


def _is_adjective(tokens: list[str], normalized: list[str], names: Mapping[tuple[str, ...], str]) -> bool:
    """Whether a color that is also a name, such as "orange", describes an object that follows."""
    if not tokens:
        return False
    if any(tuple(normalized[: len(parts)]) == parts for parts in names):
        return True
    follows = _word(tokens, normalized[0], requested=False).kind == "object"
    return follows and not tokens[0].endswith(("ing", "ed", "ly"))


def name_tokens(name: str) -> tuple[str, ...]:
    """The normalized words of a name, by which names are compared.

    Args:
        name: Name of an object.

    Example:
        >>> name_tokens("wine glasses")
        ('wine', 'glass')
    """
    return tuple(normalize_word(token) for token in split(name))


def _word(tokens: list[str], normalized: str, requested: bool) -> Word:
    """The first token with its role, which may depend on the tokens that follow."""
    first = tokens[0]
    if first in _BEFORE_COLORS:
        following = next((token for token in tokens if token not in _BEFORE_COLORS), "")
        if following in _WORDS and _WORDS[following].kind == "color":
            return Word("ignored", first)
    if first in _TWO and tokens[1:2] == ["of"]:
        return Word("group", "2")
    if first not in _WORDS and normalized in NUMBERS:
        return Word("count", str(NUMBERS.index(normalized)))
    if first.isdecimal() or first in _TENS:
        return Word("count", str(_TENS.get(first) or int(first)))
    return _WORDS.get(first) or Word("object", normalized, requested)
