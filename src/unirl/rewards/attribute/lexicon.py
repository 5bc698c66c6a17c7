"""The words of an English answer, each by what it does there: it names, colors, counts or places a thing, or links."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from unirl.prompts.words import NUMBERS, normalize

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
SYNONYMS = {
    **{"grey": "gray", "silver": "gray", "charcoal": "gray"},
    **{"violet": "purple", "lilac": "purple", "lavender": "purple"},
    **{"crimson": "red", "scarlet": "red", "maroon": "red", "navy": "blue", "azure": "blue", "cyan": "blue"},
    **{"golden": "yellow", "gold": "yellow", "tan": "brown", "beige": "brown"},
    **{"magenta": "pink", "fuchsia": "pink", "emerald": "green", "lime": "green", "ebony": "black", "ivory": "white"},
    **{"teal": "teal", "turquoise": "turquoise", "indigo": "indigo"},
}
"""Colors by another name. The last three lie between two of `COLORS` and are the same as neither."""
PLACES = {
    **{"left": ("across", "left"), "right": ("across", "right")},
    **{"above": ("upright", "above"), "over": ("upright", "above"), "top": ("upright", "above")},
    **{"below": ("upright", "below"), "under": ("upright", "below"), "bottom": ("upright", "below")},
    **{"beneath": ("upright", "below"), "underneath": ("upright", "below")},
}
"""Words of place: which axis, and which end of it."""
TOWARDS = frozenset(("above", "over", "below", "under", "beneath", "underneath"))
"""Places that need no "of": what follows them is what the place is seen from."""
Stating = Literal["thing", "color", "count", "group", "place"]
Linking = Literal["article", "link", "with", "verb", "is", "are", "both", "its", "it", "which", "stop"]
Kind = Stating | Linking | Literal["break", "denial", "maybe", "skipped"]
"""What a word states, how it hangs together with others, or that it ends, denies or doubts something."""


STATING: frozenset[Kind] = frozenset(get_args(Stating)) - {"thing"}
ATTRIBUTES: frozenset[Kind] = STATING - {"place"}


@dataclass(frozen=True)
class Word:
    """A word, or the words of one name.

    Args:
        kind: What it does. A "group" is a number where no other is given: "a pair of cups", "a single cup".
        value: The thing's name, the color, the number in digits, the word of place, or the word itself.
        asked: It names a thing that was asked for; of no objects, any thing.
    """

    kind: Kind
    value: str
    asked: bool = False


# A clause with a denial states something else: "not red", "at least two".
_KINDS: dict[Kind, str] = {
    "article": "a an the this these those another",
    "link": "of to from for on in at near next front beside behind between by",
    "with": "with has have having",
    "verb": "there i we you see can sits stands lies",
    "is": "is was be",
    "are": "are were",
    "both": "both",
    "its": "its whose",
    "it": "it",
    "which": "that which who",
    "stop": ": ( ) photo picture image photograph scene illustration frame view screen canvas background foreground "
    "center centre middle viewer camera",
    "break": ", . ; & / | ! ? — – -- and or but while whereas then yet although though however plus",
    "denial": "not cannot never neither nor without hardly barely scarcely unable missing absent lacking lacks "
    "more less fewer least most instead rather impossible fails failed nowhere except invisible",
    "maybe": "maybe perhaps possibly either may might",
    "skipped": "located positioned placed side pairs color colour colors colours colored coloured painted shade shades "
    "tone hue pair they them think probably sitting standing directly slightly just other also only respectively here "
    "what where how show shows showing shown depict depicts depicting contains containing features featuring displays "
    "displaying appears appear looks seems visible seen answer ca x very quite clearly definitely mostly mainly "
    "entirely completely exactly",
}
_WORDS: dict[str, Word] = {
    **{word: Word(kind, word) for kind, words in _KINDS.items() for word in words.split()},
    **{"\n": Word("break", "."), "no": Word("count", "0"), "zero": Word("count", "0"), "single": Word("group", "1")},
    **{word: Word("count", word) for word in ("some", "several", "many", "few", "numerous")},
    **{"dozen": Word("count", "12"), "hundred": Word("count", "100"), "thousand": Word("count", "1000")},
    **{color: Word("color", SYNONYMS.get(color, color)) for color in (*COLORS, *SYNONYMS)},
    **{place: Word("place", place) for place in PLACES},
}
OPENERS = frozenset(("yes", "sure", "okay", "ok", "well", "certainly"))
"""Words in front of an answer that are no part of it."""
PAIRED = frozenset(("skis", "ski", "scissors", "scissor", "sunglasses", "sunglass", "headphones", "headphone"))
"""Things with two halves: "a pair of scissors" is one."""
_TWO = frozenset(("pair", "couple"))
_BEFORE_COLORS = frozenset(
    (
        *("dark", "light", "bright", "deep", "pale", "pastel", "vivid", "neon"),
        *("sky", "royal", "baby", "hot", "forest", "in"),
    )
)
"""Words that only lead to a color where one follows: "sky blue", "in red"."""
_OTHER_THINGS: dict[tuple[str, ...], str] = {
    (first, last): f"{first} {last}"
    for first, last in (("hot", "dog"), ("prairie", "dog"), ("teddy", "bear"), ("gummy", "bear"), ("sea", "lion"))
}
"""Names whose last word alone is the name of something else."""
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_MORE_THAN_ONE = "|".join((*NUMBERS[2:], *_TENS, r"\d"))
_COMPOUND = rf"\b({'|'.join(_TENS)})[- ]({'|'.join(NUMBERS[1:10])})\b"
_BEFORE_RIGHT = ("the", "its", "far", "upper", "lower", "top", "bottom")
_BEHIND_RIGHT = (
    *("next", "beside", "by", "near", "behind", "in", "on", "at", "above", "over", "below", "under", "beneath"),
    *("between", "against"),
)
_PHRASES = (
    (r"n['’]t\b", " not"),
    (r"['’]s\b", ""),
    (r"\bas well as\b", ","),
    (r"\bfrom (?:left to right|right to left|top to bottom|bottom to top)\b", ""),
    # "right next to" is not to the right
    (rf"{''.join(f'(?<!{word} )' for word in _BEFORE_RIGHT)}\bright (?={'|'.join(_BEHIND_RIGHT)})", ""),
    (r"\b(?:facing|looking|pointing|turned)(?: to the)? (?:left|right)\b", ""),
    (r"\b(?:knocked|tipped|turned|fallen) over\b", ""),
    (r"(\d) ?\+", r"more than \1"),
    (rf"\b(?:over|under|nearly|almost|about|around|approximately|roughly|up to) (?={_MORE_THAN_ONE})", "maybe "),
    (r"\b(?:could|would) (?=be)", "may "),
)
"""Turns of phrase that single words would be misread in, and what they come to."""
_SPLIT = re.compile(r"\d+(?=x\b|[^\W\d_]{3})|[^\W_]+|--|[,.;&:()/|!?—–\n]")


def words_of(text: str, names: Mapping[tuple[str, ...], str]) -> list[Word]:
    """The words of a text, without those that say nothing.

    Words that nobody knows make one name together; in front of a thing asked for, they only describe it.

    Args:
        text: Any text.
        names: What was asked for, by its `name_parts`.

    Example:
        >>> [(word.kind, word.value) for word in words_of("3 shiny dark blue cups", {("cup",): "cup"})]
        [('count', '3'), ('thing', 'shiny'), ('color', 'blue'), ('thing', 'cup')]
    """
    raw = split(text)
    normal = [normalize(word) for word in raw]
    known = {**_OTHER_THINGS, **names} if names else {}
    longest = sorted(known, key=len, reverse=True)
    found: list[Word] = []
    at, loose = 0, ""
    while at < len(raw):
        name = next((parts for parts in longest if tuple(normal[at : at + len(parts)]) == parts), None)
        if name and raw[at] in COLORS and _describes(raw[at + 1 :], normal[at + 1 :], known):
            name = None  # an orange cup is no orange
        word = Word("thing", known[name], name in names) if name else _word(raw[at:], normal[at], asked=not names)
        if loose and word.kind == "thing":
            found.pop()
            word = word if name else Word("thing", f"{loose} {word.value}", word.asked)
        loose = word.value if word.kind == "thing" and not name else ""
        found += [word] if word.kind != "skipped" else []
        at += len(name) if name else 1
    return found


def split(text: str) -> list[str]:
    """Lower case words and marks, without what hangs on an apostrophe, and with turns of phrase in plain words."""
    text = text.lower()
    for pattern, plain in _PHRASES:
        text = re.sub(pattern, plain, text)
    return _SPLIT.findall(re.sub(_COMPOUND, lambda found: str(_TENS[found[1]] + NUMBERS.index(found[2])), text))


def _describes(raw: list[str], normal: list[str], names: Mapping[tuple[str, ...], str]) -> bool:
    """Whether a color's name is one: a thing follows."""
    if not raw:
        return False
    if any(tuple(normal[: len(parts)]) == parts for parts in names):
        return True
    return _word(raw, normal[0], asked=False).kind == "thing" and not raw[0].endswith(("ing", "ed", "ly"))


def name_parts(name: str) -> tuple[str, ...]:
    """The words of a name as they are compared."""
    return tuple(normalize(word) for word in split(name))


def _word(raw: list[str], normal: str, asked: bool) -> Word:
    """The first word, by itself or by what follows it."""
    first = raw[0]
    if first in _BEFORE_COLORS:
        following = next((word for word in raw if word not in _BEFORE_COLORS), "")
        if following in _WORDS and _WORDS[following].kind == "color":
            return Word("skipped", first)
    if first in _TWO and raw[1:2] == ["of"]:
        return Word("group", "2")
    if first not in _WORDS and normal in NUMBERS:
        return Word("count", str(NUMBERS.index(normal)))
    if first.isdecimal() or first in _TENS:
        return Word("count", str(_TENS.get(first) or int(first)))
    return _WORDS.get(first) or Word("thing", normal, asked)
