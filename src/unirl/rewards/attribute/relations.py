"""Which thing of a clause stands where, and seen from which other."""

from collections.abc import Sequence
from typing import NamedTuple

from unirl.rewards.attribute.bindings import kinds_between, led
from unirl.rewards.attribute.lexicon import PLACES, TOWARDS, Word


class Place(NamedTuple):
    """Where one thing stands, seen from another; None where the clause does not say which.

    Args:
        axis: "across" or "upright".
        end: "left", "right", "above" or "below".
        subject: The position of the thing that stands there.
        target: The position of the thing it is seen from.
    """

    axis: str
    end: str
    subject: int | None
    target: int | None


def places(words: Sequence[Word]) -> list[Place]:
    """What a clause says of places. Things that nobody asked for are overlooked beside one that was.

    Args:
        words: A clause.

    Example:
        >>> from unirl.rewards.attribute.lexicon import words_of
        >>> places(words_of("dog left of cat", {})) == [Place("across", "left", 0, 3)]
        True
        >>> places(words_of("cat with dog to its left", {})) == [Place("across", "left", 2, 0)]
        True
    """
    things = [at for at, word in enumerate(words) if word.kind == "thing"]
    things = [at for at in things if words[at].asked] or things
    found = [at for at, word in enumerate(words) if word.kind == "place"]
    several = any(found[0] < thing < found[-1] for thing in things if found)
    return [Place(*PLACES[words[at].value], *_ends(words, at, things, several)) for at in found]


def _ends(words: Sequence[Word], at: int, things: list[int], several: bool) -> tuple[int | None, int | None]:
    before, after = [thing for thing in things if thing < at], [thing for thing in things if thing > at]
    free = [thing for thing in after if not led(words, thing)]
    past = _past(words, at)
    if words[at - 1 if at else 0].kind == "its" or _is_it(words, past):
        return _of_it(words, past, before, free)
    target = _target(words, past)
    if target is not None:
        return _first(_subject(words, before), *(thing for thing in free if thing != target)), target
    if several:  # a cup on the left with a dog on the right
        behind = things[0] < min(at for at, word in enumerate(words) if word.kind == "place")
        return _first(*([] if behind else free), *reversed(before), *free), None
    subject = _subject(words, before)
    if subject is None:
        return _first(*free), _first(*before)
    return subject, _first(*(thing for thing in before if thing != subject), *after)


def _past(words: Sequence[Word], at: int) -> int:
    """Where the place ends: "left", "left above", "left edge of"."""
    past = next((i for i in range(at, len(words)) if words[i].kind != "place"), len(words))
    edge = past + 1 < len(words) and words[past + 1].value == "of" and words[past].kind == "thing"
    return past + 1 if edge and not words[past].asked else past


def _of_it(words: Sequence[Word], past: int, before: list[int], free: list[int]) -> tuple[int | None, int | None]:
    """ "A cat with a dog to its left" has a dog left of the cat; so has "a cat, to its left is a dog"."""
    while past < len(words) and (words[past].value == "of" or words[past].kind == "it"):
        past += 1
    if free and (not before or (past < len(words) and words[past].kind in ("verb", "is", "are", "with"))):
        return free[0], _first(*reversed(before))
    return _first(*reversed(before)), _first(*reversed(before[:-1]))


def _is_it(words: Sequence[Word], past: int) -> bool:
    past += past < len(words) and words[past].value == "of"
    return past < len(words) and words[past].kind == "it"


def _target(words: Sequence[Word], past: int) -> int | None:
    """The thing right behind "left of" or "above"."""
    led = past < len(words) and words[past].value in ("of", "to", "from")
    if not led and words[past - 1].value not in TOWARDS:
        return None
    for at in range(past + led, len(words)):
        if words[at].kind == "thing":
            return at
        if words[at].kind not in ("article", "color", "count", "group") and words[at].value != "of":
            return None
    return None


def _subject(words: Sequence[Word], before: list[int]) -> int | None:
    """Of "a cat with a dog" the dog, of "seen from the cat the dog" too, else the first."""
    if len(before) > 1 and "with" in kinds_between(words, before[-2], before[-1]):
        return before[-1]
    return next((thing for thing in before if not led(words, thing)), None)


def _first(*things: int | None) -> int | None:
    return next((thing for thing in things if thing is not None), None)
