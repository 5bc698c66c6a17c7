"""Where the clauses of an English answer end."""

from collections.abc import Sequence
from itertools import takewhile

from unirl.functional.statements.words import ATTRIBUTES, STATING, Word

_DASHES = ("—", "–", "--")
LISTING = frozenset(("and", "&", ","))
"""Breaks between the things of a list."""
Part = tuple[list[Word], frozenset[str]]
"""The words of a clause, and the breaks in front of it."""


def parts(words: Sequence[Word]) -> list[Part]:
    """The words between breaks, with the breaks before them. "Are" and ":" are breaks behind a list of things.

    Args:
        words: An answer.

    Example:
        >>> from unirl.functional.statements.words import words_of
        >>> [[word.value for word in part] for part, _ in parts(words_of("cup and dog are red or blue", {}))]
        [['cup'], ['dog'], ['red', 'blue']]
    """
    done: list[Part] = []
    joined: frozenset[str] = frozenset()
    for at, word in enumerate(words):
        current = done[-1][0] if done and not joined else []
        if word.kind == "break" and not _goes_on(words, at, current):
            joined |= {word.value}
        elif current and _ends_list(word, done):
            joined |= {"are" if word.kind == "are" else word.value}
        elif word.kind != "break":
            if joined or not done:
                done.append(([], joined))
            done[-1][0].append(word)
            joined = frozenset()
    return done


def _ends_list(word: Word, done: list[Part]) -> bool:
    """ "The cup and the dog are", "cup, dog:"."""
    if len(done) < 2 or not done[-1][1] <= LISTING or not (word.kind == "are" or word.value == ":"):
        return False
    kinds = [{word.kind for word in part} for part, _ in done[-2:]]
    return all("thing" in part and part.isdisjoint(STATING) for part in kinds)


def _goes_on(words: Sequence[Word], at: int, current: list[Word]) -> bool:
    """Whether a clause goes on behind the break at a position."""
    ahead = list(takewhile(lambda word: word.kind != "break", words[at + 1 :]))
    rules = {"or": _either, "and": _both, "&": _both, ",": _place_first, **dict.fromkeys(_DASHES, _label)}
    return words[at].value in rules and rules[words[at].value](current, ahead)


def _either(current: list[Word], ahead: list[Word]) -> bool:
    """ "Red or blue", "left or right"; but "a cup or a dog" are two clauses."""
    before, after = ([word.kind for word in part if word.kind in STATING | {"thing"}] for part in (current, ahead))
    return bool(before and after) and "thing" not in (before[-1], after[0])


def _both(current: list[Word], ahead: list[Word]) -> bool:
    """ "A red and blue cup", "three and four cups"; but "red and blue" are two clauses."""
    named = next((word.kind for word in ahead if word.kind not in ATTRIBUTES), None) == "thing"
    kinds = [part[at].kind for part, at in ((current, -1), (ahead, 0)) if part]
    alike = len(kinds) == 2 and kinds[0] == kinds[1] and kinds[0] in ATTRIBUTES
    return named and alike and all(word.kind != "thing" for word in current)


def _place_first(current: list[Word], ahead: list[Word]) -> bool:
    """ "On the left, a cup"; but "left, a cup" and "on the left, a cup on the right" are two clauses."""
    kinds, after = {word.kind for word in current}, {word.kind for word in ahead}
    opens = {"link", "place"} <= kinds <= {"link", "article", "place", "stop", "its", "it"}
    return opens and "thing" in after and "place" not in after


def _label(current: list[Word], ahead: list[Word]) -> bool:
    """ "Left — a cup"; but "a cup — red" are two clauses, of which the second goes on about the cup."""
    before, after = {word.kind for word in current}, {word.kind for word in ahead}
    return not before.isdisjoint(STATING) and "thing" not in before and "thing" in after and after.isdisjoint(STATING)
