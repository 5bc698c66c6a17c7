"""What an English answer of a few words states: which thing has which number, color and place."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from unirl.functional.words import NUMBERS, normalize
from unirl.types import Item

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
SYNONYMS = {
    **{
        "grey": "gray",
        "silver": "gray",
        "charcoal": "gray",
        "violet": "purple",
        "lilac": "purple",
        "lavender": "purple",
    },
    **{"crimson": "red", "scarlet": "red", "maroon": "red", "navy": "blue", "azure": "blue", "golden": "yellow"},
    **{"magenta": "pink", "fuchsia": "pink", "emerald": "green", "lime": "green", "ebony": "black", "ivory": "white"},
}
"""Colors by another name."""
PLACES = {
    **{
        "left": ("across", "left"),
        "right": ("across", "right"),
        "above": ("upright", "above"),
        "over": ("upright", "above"),
    },
    **{"top": ("upright", "above"), "below": ("upright", "below"), "under": ("upright", "below")},
    **{"beneath": ("upright", "below"), "underneath": ("upright", "below"), "bottom": ("upright", "below")},
}
"""Words of place: which axis, and which end of it."""
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_SKIPPED = frozenset(
    (
        *("a", "an", "the", "there", "this", "that", "it", "its", "i", "see", "can", "both"),
        *("is", "are", "was", "were", "be", "has", "have", "located", "positioned", "placed"),
        *("of", "to", "on", "in", "at", "from", "with", "side", "pair", "pairs"),
        *("photo", "picture", "image", "color", "colour", "colored", "coloured"),
        *("they", "these", "those", "them", "think", "or", "either", "maybe", "perhaps", "possibly", "probably"),
        *("next", "front", "sitting", "standing", "directly", "slightly", "just"),
    )
)
_WORDS = re.compile(r"[^\W_]+|[,.;&]")
_BREAKS = frozenset((",", ".", ";", "&", "and", "but", "while"))
_DENIALS = frozenset(("not", "never", "neither", "nor", "without", "more", "less", "fewer", "least", "most"))
"""A clause with one of these states something else: "not red", "at least two"."""
_NONE = {"no": 0, "zero": 0}
Facts = dict[tuple[str, ...], frozenset[str]]
"""What is stated by what it is about, such as `("count", "cup")`; more than one value contradict each other."""


def facts(text: str, objects: Sequence[Item] = ()) -> Facts:
    """What an answer states. Order of clauses, articles, case, plurals and digits make no difference.

    A number or color in front of a thing is that thing's; behind it, too ("the cup is red"). Words without a thing are
    about the objects asked for, in their order: of a red cup and a blue dog, "red and blue" says the same as "the cup
    is red and the dog is blue". "A is left of B" and "B is right of A" are one fact. What is denied ("not
    red") or left open ("at least two", "red or blue") is not stated.

    Args:
        text: The answer.
        objects: What was asked for: names of several words, and what bare words are about.

    Example:
        >>> facts("The dog is blue and the cup is red") == facts("a red cup and a blue dog")
        True
        >>> facts("2 cups")[("count", "cup")]
        frozenset({'2'})
    """
    names = {tuple(normalize(word) for word in item.name.split()): item.name for item in objects}
    stated: dict[tuple[str, ...], set[str]] = {}
    for index, words in enumerate(_clauses(text)):
        denied = "not " if _DENIALS.intersection(words) else ""
        for key, value in _read([w for w in words if w not in _DENIALS], names).facts(_Asked(objects, index)):
            stated.setdefault(key, set()).add(denied + value)
    return {key: frozenset(values) for key, values in stated.items()}


def agreement(wanted: Facts, got: Facts) -> float:
    """Share in [0, 1] of the wanted facts that were stated and not contradicted.

    That a thing is there is only wanted where nothing else is said about it. A thing that is not there has no color and
    no place, whatever is said of it.

    Args:
        wanted: What the right answer states; something.
        got: What was stated.

    Example:
        >>> agreement(facts("the cup is red and the dog is blue"), facts("a red cup and a red dog"))
        0.5
    """
    described = {name for key in wanted if key[0] != "there" for name in key[1:]}
    wanted = {key: value for key, value in wanted.items() if key[0] != "there" or key[1] not in described}
    absent = {key[1] for key, value in got.items() if key[0] == "count" and value == {"0"}}
    met = [got.get(key) == value and (key[0] == "count" or absent.isdisjoint(key[1:])) for key, value in wanted.items()]
    return sum(met) / len(met)


@dataclass
class _Asked:
    """What words without a thing are about: in the first clause the first object, and so on."""

    objects: Sequence[Item]
    index: int

    def thing(self, slot: str) -> str | None:
        fitting = [item.name for item in self.objects if slot == "count" or item.color] or [
            o.name for o in self.objects
        ]
        return fitting[min(self.index, len(fitting) - 1)] if fitting else None

    def pair(self) -> tuple[str | None, str | None]:
        for item in self.objects:
            if item.relation:
                return item.name, self.objects[item.relation[1]].name
        return None, None


@dataclass
class _Clause:
    """Things with their numbers and colors, what stands bare, and the place of the first thing from the second."""

    things: list[str] = field(default_factory=list)
    said: list[tuple[str, int, str]] = field(default_factory=list)
    places: list[tuple[str, str]] = field(default_factory=list)
    place_first: bool = False

    def facts(self, asked: _Asked) -> list[tuple[tuple[str, ...], str]]:
        found: list[tuple[tuple[str, ...], str]] = [(("there", name), "yes") for name in self.things]
        for slot, index, value in self.said:
            name = self.things[index] if self.things else asked.thing(slot)
            found.append(((slot, name or ""), value))
        for axis, end in self.places:
            found.append(_placed(axis, end, *self._ends(asked)))
        return found

    def _ends(self, asked: _Asked) -> tuple[str, str]:
        first, second = asked.pair()
        named = [item.name for item in asked.objects]
        things = [name for name in self.things if name in named] or self.things
        if len(things) > 1:
            first, second = (things[1], things[0]) if self.place_first else (things[0], things[1])
        elif things:
            first, second = (first, things[0]) if self.place_first else (things[0], second)
        return first or "", second or ""


def _placed(axis: str, end: str, name: str, target: str) -> tuple[tuple[str, ...], str]:
    """One way to say it: from the name that comes first in the alphabet."""
    return ((axis, name, target), end) if name <= target else ((axis, target, name), OPPOSITE[end])


def _clauses(text: str) -> list[list[str]]:
    clauses: list[list[str]] = [[]]
    text = re.sub(r"n['’]t\b", " not", text.lower())
    for word in _WORDS.findall(re.sub(r"['’]s\b", "", text)):
        if word in _BREAKS:
            clauses.append([])
        else:
            clauses[-1].append(word)
    return [words for words in clauses if words]


def _read(words: Sequence[str], names: dict[tuple[str, ...], str]) -> _Clause:
    """The parts of one clause. What is said in front of a thing belongs to it, what is said last to the first thing."""
    waiting: list[tuple[str, str]] = []
    clause, unknown, at = _Clause(), False, 0
    while at < len(words):
        raw, word = words[at], normalize(words[at])
        known = next((n for n in sorted(names, key=len, reverse=True) if _starts(words[at:], n)), None)
        color, at = SYNONYMS.get(raw, raw), at + (len(known) if known else 1)
        if known or not _is_function(raw, word, color):
            # Words that nobody knows make one name together; in front of a thing asked for, they only describe it.
            before = clause.things.pop() if unknown else ""
            clause.things.append(names[known] if known else f"{before} {word}".strip())
            clause.said += [(slot, len(clause.things) - 1, value) for slot, value in waiting]
            waiting = []
        elif color in COLORS:
            waiting.append(("color", color))
        elif raw in _NONE or word in NUMBERS:
            waiting.append(("count", str(_NONE[raw] if raw in _NONE else NUMBERS.index(word))))
        elif raw in PLACES:
            clause.place_first |= not clause.things
            clause.places.append(PLACES[raw])
        unknown = not known and not _is_function(raw, word, color)
    clause.said += [(slot, 0, value) for slot, value in waiting]
    return clause


def _starts(words: Sequence[str], name: tuple[str, ...]) -> bool:
    return len(words) >= len(name) and all(normalize(w) == n for w, n in zip(words, name, strict=False))


def _is_function(raw: str, word: str, color: str) -> bool:
    return raw in _SKIPPED or color in COLORS or raw in _NONE or word in NUMBERS or raw in PLACES
