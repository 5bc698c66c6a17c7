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
    )
)
_WORDS = re.compile(r"[^\W_]+|[,.;&]")
_BREAKS = frozenset((",", ".", ";", "&", "and", "but", "while"))
_NONE = {"no": 0, "zero": 0}
Facts = dict[tuple[str, ...], frozenset[str]]
"""What is stated by what it is about, such as `("count", "cup")`; more than one value contradict each other."""


def facts(text: str, objects: Sequence[Item] = ()) -> Facts:
    """What an answer states. Order of clauses, articles, case, plurals and digits make no difference.

    A number or color in front of a thing is that thing's; behind it, too ("the cup is red"). Words without a thing are
    about the objects asked for, in their order: of a red cup and a blue dog, "red and blue" says the same as "the cup
    is red and the dog is blue". "A is left of B" and "B is right of A" are one fact. A thing of which nothing else is
    said is a fact by itself.

    Args:
        text: The answer.
        objects: What was asked for: names of several words, and what bare words are about.

    Example:
        >>> facts("The dog is blue and the cup is red") == facts("a red cup and a blue dog")
        True
        >>> facts("2 cups")
        {('count', 'cup'): frozenset({'2'})}
    """
    names = {tuple(normalize(word) for word in item.name.split()): item.name for item in objects}
    stated: dict[tuple[str, ...], set[str]] = {}
    clauses = list(_clauses(text))
    for index, words in enumerate(clauses):
        clause = _read(words, names)
        about = _Asked(objects, index)
        for key, value in clause.facts(about):
            stated.setdefault(key, set()).add(value)
    described = {name for key in stated if key[0] != "there" for name in key[1:]}
    return {key: frozenset(v) for key, v in stated.items() if key[0] != "there" or key[1] not in described}


def agreement(wanted: Facts, got: Facts) -> float:
    """Share in [0, 1] of the wanted facts that were stated and not contradicted.

    Example:
        >>> agreement(facts("the cup is red and the dog is blue"), facts("a red cup and a red dog"))
        0.5
    """
    return sum(got.get(key) == value for key, value in wanted.items()) / len(wanted)


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
            name = self.things[min(index, len(self.things) - 1)] if self.things else asked.thing(slot)
            found.append(((slot, name or ""), value))
        for axis, end in self.places:
            found.append(_placed(axis, end, *self._ends(asked)))
        return found

    def _ends(self, asked: _Asked) -> tuple[str, str]:
        first, second = asked.pair()
        if len(self.things) > 1:
            first, second = self.things[:2]
        elif self.things:
            first, second = (first, self.things[0]) if self.place_first else (self.things[0], second)
        return first or "", second or ""


def _placed(axis: str, end: str, name: str, target: str) -> tuple[tuple[str, ...], str]:
    """One way to say it: from the name that comes first in the alphabet."""
    return ((axis, name, target), end) if name <= target else ((axis, target, name), OPPOSITE[end])


def _clauses(text: str) -> list[list[str]]:
    clauses: list[list[str]] = [[]]
    for word in _WORDS.findall(re.sub(r"['’]s\b", "", text.lower())):
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
            # Words that nobody knows make one name together.
            name = names[known] if known else f"{clause.things.pop()} {word}" if unknown else word
            clause.things.append(name)
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
