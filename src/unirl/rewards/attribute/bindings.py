"""Which object of a clause a number, a color or a spatial relation belongs to."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from unirl.rewards.attribute.lexicon import DIRECTIONS, NUMBERS_AND_COLORS, PREPOSITIONS
from unirl.rewards.attribute.roles import Word

_PHRASE_STARTS = frozenset(("article", "preposition", "with", "relation"))
"""Roles that begin a new phrase: "next to the red ..."."""
_PHRASE_ENDS = frozenset(("scene", "preposition", "with", "relation", "its", "which"))
Binding = tuple[int, int | None]
"""Position of a number or color, and position of its object, or None."""


class SpatialRelation(NamedTuple):
    """Where an object is as seen from another one. Positions are None where the clause does not name the object.

    Args:
        axis: "horizontal" or "vertical".
        direction: "left", "right", "above" or "below".
        subject: Position of the object that is placed.
        target: Position of the object it is seen from.
    """

    axis: str
    direction: str
    subject: int | None
    target: int | None


# --- numbers and colors ---


def attribute_owners(words: Sequence[Word]) -> list[Binding]:
    """The object of each number and color of a clause; None where the clause names no object.

    An attribute belongs to the object that follows, unless something separates them ("the cup is red | the dog is
    blue"). After its object, it belongs to the `main_object` of what was named so far. "cup red dog blue" alternates.

    Args:
        words: A clause.

    Example:
        >>> from unirl.rewards.attribute.lexicon import tokenize
        >>> [attribute_owners(tokenize(text, {})) for text in ("two cups", "cup red dog blue")]
        [[(0, 1)], [(1, 0), (3, 2)]]
    """
    objects = [i for i, word in enumerate(words) if word.kind == "object"]
    order, complete = _alternation(words), False
    preceding: list[int] = []
    bindings: list[Binding] = []
    for i, word in enumerate(words):
        if word.kind == "object":
            preceding, complete = [*([] if complete else preceding), i], False
        elif word.kind in NUMBERS_AND_COLORS and (owner := _owner_after(words, i)) is not None:
            bindings.append((i, owner))
        elif word.kind in NUMBERS_AND_COLORS:
            following = next((position for position in objects if position > i), None)
            complete = bool(preceding) and (
                following is None or _belongs_to_preceding(words, preceding[-1], i, following, order)
            )
            bindings.append((i, main_object(words, preceding, i) if complete else following))
    return bindings


def _owner_after(words: Sequence[Word], i: int) -> int | None:
    """The cup of "the red cup's handle"."""
    end = next((j for j in range(i, len(words)) if words[j].kind not in NUMBERS_AND_COLORS), len(words))
    return end if end < len(words) and words[end].kind == "owner" else None


def main_object(words: Sequence[Word], objects: Sequence[int], end: int) -> int:
    """The object that a statement after several objects is about: the cup of "the cup next to the dog is red".

    Unknown words may be anything; those with an article or a number are objects.

    Args:
        words: A clause.
        objects: Positions of the candidates, at least one.
        end: Position of the statement.
    """
    last = objects[-1]
    if words[last].requested and any(word.kind == "which" for word in words[last:end]):
        return last
    independent = [i for i in objects if not _is_modifier(words, i)]
    determined = [i for i in independent if words[i - 1 if i else 0].kind in ("article", *NUMBERS_AND_COLORS)]
    requested = [i for i in objects if words[i].requested]
    return [*(i for i in independent if i in requested), *determined, *requested, *objects][0]


def kinds_between(words: Sequence[Word], start: int, end: int) -> set[str]:
    """Roles of the words between two positions. "of" is left out: "a pair of cups" is one phrase.

    Args:
        words: A clause.
        start: Position of the word before.
        end: Position of the word after.
    """
    return {word.kind for word in words[start + 1 : end] if word.value != "of"}


def has_preposition(words: Sequence[Word], i: int) -> bool:
    """Whether a preposition such as "on" or "from" is between an object and the statement before it.

    Args:
        words: A clause.
        i: Position of the object.
    """
    start = next((j for j in reversed(range(i)) if words[j].kind in ("object", "relation", "scene")), -1)
    return "preposition" in kinds_between(words, start, i)


def _is_modifier(words: Sequence[Word], i: int) -> bool:
    """Whether an object only describes an earlier one: the dog of "the cup next to the dog"."""
    previous = next((j for j in reversed(range(i)) if words[j].kind == "object"), None)
    if previous is None:
        return False
    return not kinds_between(words, previous, i).isdisjoint(("preposition", "with", "relation"))


def _belongs_to_preceding(words: Sequence[Word], preceding: int, i: int, following: int, order: int) -> bool:
    """Whether a number or color between two objects belongs to the one before it."""
    before, after = (kinds_between(words, *ends) - NUMBERS_AND_COLORS for ends in ((preceding, i), (i, following)))
    if order > 0 or (after <= {"is", "are", "article"} and not after <= {"article"}):
        return False  # red is the cup
    if before and before <= {"is", "are"} and not words[following].requested and not has_preposition(words, preceding):
        return True  # the cup is red because
    separated = "article" in after and all(word.value != "of" for word in words[i:following])
    return separated or not after.isdisjoint(_PHRASE_ENDS) or (order < 0 and before.isdisjoint(_PHRASE_STARTS))


def _alternation(words: Sequence[Word]) -> int:
    """-1 where each object is followed by its attribute, as in "cup red dog blue"; 1 in "red: cup blue: dog"; or 0."""
    letters = {**dict.fromkeys(NUMBERS_AND_COLORS, "A"), "object": "U"}
    order = "".join("R" if w.requested else ":" if w.value == ":" else letters.get(w.kind, "") for w in words)
    if re.fullmatch(":*(A+:[RU]){2,}", order):
        return 1
    order = re.sub("A+", "A", order.replace(":", ""))
    return -any(re.fullmatch("(RA){2,}", text) for text in (order.replace("U", "R"), order.replace("U", "")))


# --- spatial relations ---


def spatial_relations(words: Sequence[Word]) -> list[SpatialRelation]:
    """The spatial relations of a clause. Objects outside of the prompt are ignored where one of the prompt is named.

    Args:
        words: A clause.

    Example:
        >>> from unirl.rewards.attribute.lexicon import tokenize
        >>> spatial_relations(tokenize("dog left of cat", {})) == [SpatialRelation("horizontal", "left", 0, 3)]
        True
        >>> relation = SpatialRelation("horizontal", "left", 2, 0)
        >>> spatial_relations(tokenize("cat with dog to its left", {})) == [relation]
        True
    """
    objects = [i for i, word in enumerate(words) if word.kind == "object"]
    objects = [i for i in objects if words[i].requested] or objects
    relations = [i for i, word in enumerate(words) if word.kind == "relation"]
    several = any(relations[0] < i < relations[-1] for i in objects if relations)
    return [SpatialRelation(*DIRECTIONS[words[i].value], *_ends(words, i, objects, several)) for i in relations]


def _ends(words: Sequence[Word], i: int, objects: list[int], several: bool) -> tuple[int | None, int | None]:
    """Positions of subject and target of the relation at a position."""
    before, after = [o for o in objects if o < i], [o for o in objects if o > i]
    independent = [o for o in after if not has_preposition(words, o)]
    end = _relation_end(words, i)
    if _is_relative(words, end) and independent:  # a cup to the left of which is a lamp
        return independent[0], _first(*reversed(before))
    if words[i - 1 if i else 0].kind == "its" or _is_pronoun(words, end):
        return _ends_with_pronoun(words, end, before, independent)
    target = _target(words, end)
    if target is not None:
        return _first(_subject(words, before), *(o for o in independent if o != target)), target
    if several:  # a cup on the left with a dog on the right
        objects_first = objects[0] < min(j for j, word in enumerate(words) if word.kind == "relation")
        return _first(*([] if objects_first else independent), *reversed(before), *independent), None
    subject = _subject(words, before)
    if subject is None:
        return _first(*independent), _first(*before)
    return subject, _first(*(o for o in before if o != subject), *after)


def _relation_end(words: Sequence[Word], i: int) -> int:
    """Position after the words of a relation: "left", "left above", "left edge of"."""
    end = next((j for j in range(i, len(words)) if words[j].kind != "relation"), len(words))
    has_edge = end + 1 < len(words) and words[end + 1].value == "of" and words[end].kind == "object"
    return end + 1 if has_edge and not words[end].requested else end


def _ends_with_pronoun(
    words: Sequence[Word], end: int, before: list[int], independent: list[int]
) -> tuple[int | None, int | None]:
    """Subject and target with "it" or "its": "a cat with a dog to its left", "a cat, to its left is a dog"."""
    while end < len(words) and (words[end].value == "of" or words[end].kind == "it"):
        end += 1
    if independent and (not before or (end < len(words) and words[end].kind in ("verb", "is", "are", "with"))):
        return independent[0], _first(*reversed(before))
    return _first(*reversed(before)), _first(*reversed(before[:-1]))


def _is_relative(words: Sequence[Word], end: int) -> bool:
    """Whether "which" is the target: "left of which", "above which"."""
    has_of = end < len(words) and words[end].value == "of"
    end += has_of
    follows = end < len(words) and words[end].kind == "which"
    return follows and (has_of or words[end - 1].value in PREPOSITIONS)


def _is_pronoun(words: Sequence[Word], end: int) -> bool:
    end += end < len(words) and words[end].value == "of"
    return end < len(words) and words[end].kind == "it"


def _target(words: Sequence[Word], end: int) -> int | None:
    """The object directly after "left of" or "above"."""
    has_of = end < len(words) and words[end].value in ("of", "to", "from")
    if not has_of and words[end - 1].value not in PREPOSITIONS:
        return None
    for i in range(end + has_of, len(words)):
        if words[i].kind == "object":
            return i
        if words[i].kind not in ("article", "color", "count", "group", "owner") and words[i].value != "of":
            return None
    return None


def _subject(words: Sequence[Word], before: list[int]) -> int | None:
    """The dog of "a cat with a dog" and of "seen from the cat the dog", otherwise the first object."""
    if len(before) > 1 and "with" in kinds_between(words, before[-2], before[-1]):
        return before[-1]
    return next((i for i in before if not has_preposition(words, i)), None)


def _first(*positions: int | None) -> int | None:
    return next((i for i in positions if i is not None), None)
