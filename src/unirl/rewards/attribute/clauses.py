"""An English answer in clauses, each with what it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from unirl.rewards.attribute.bindings import led, owners, subject
from unirl.rewards.attribute.lexicon import ATTRIBUTES, STATING, Word
from unirl.rewards.attribute.relations import places


@dataclass(frozen=True)
class Clause:
    """Words between two breaks.

    Args:
        words: What it says.
        joined: The breaks in front of it, such as ",".
        denied: It says what is not so.
        ahead: And begins with that.
        doubted: Whether its things are there is left open.
        open: It is one of several, only one of which is so.
        carried: What it is about comes from an earlier clause.
    """

    words: tuple[Word, ...]
    joined: frozenset[str] = frozenset()
    denied: bool = False
    ahead: bool = False
    doubted: bool = False
    open: bool = False
    carried: bool = False

    @property
    def things(self) -> list[int]:
        """The positions of its things."""
        return [at for at, word in enumerate(self.words) if word.kind == "thing"]

    @property
    def states(self) -> bool:
        """It has a number, color or place."""
        return any(word.kind in STATING for word in self.words)


def clauses_of(words: Sequence[Word]) -> list[Clause]:
    """The clauses of an answer. One without a thing goes on about the thing that was named before it.

    As many as there are things in a list before them are about one each: "the cup and the dog are red and blue".

    Args:
        words: An answer.

    Example:
        >>> from unirl.rewards.attribute.lexicon import words_of
        >>> [[w.value for w in clause.words] for clause in clauses_of(words_of("cup, dog: red, blue", {}))]
        [['cup'], ['dog'], ['cup', 'red'], ['dog', 'blue']]
    """
    said = _denied([_clause(part, joined) for part, joined in parts(words)])
    clauses = _opened([clause for clause in said if clause.things or clause.states])
    done: list[Clause] = []
    for at, clause in enumerate(clauses):
        about = _about(clauses, at, done) if clause.states and not clause.things else []
        named = [replace(clause, words=(thing, *clause.words), carried=True) for thing in about]
        done += named or [clause]
    return done


def _clause(words: Sequence[Word], joined: frozenset[str]) -> Clause:
    kinds = {word.kind for word in words}
    said = tuple(word for word in words if word.kind not in ("denial", "maybe"))
    order = [word.kind for word in words if word.kind in ("denial", "thing", "are")]
    return Clause(said, joined, denied="denial" in kinds, ahead=order[:1] == ["denial"], doubted="maybe" in kinds)


def _denied(clauses: list[Clause]) -> list[Clause]:
    """Of a list all is denied: "the cup and the dog are missing", "I cannot see a cup and a dog"."""
    denied, ahead = [clause.denied for clause in clauses], [clause.ahead for clause in clauses]
    for at, clause in enumerate(clauses[1:], 1):
        before = clauses[at - 1]
        if ahead[at - 1] and clause.joined == {"and"} and _only_names(before) and _only_names(clause):
            denied[at] = ahead[at] = True
        if clause.denied and _of_a_list(clause, before):
            first = at - 1
            while first and clauses[first].joined <= LISTING and not clauses[first - 1].states:
                first -= 1
            denied[first:at] = [True] * (at - first)
    return [replace(clause, denied=so) for clause, so in zip(clauses, denied, strict=True)]


def _only_names(clause: Clause) -> bool:
    return bool(clause.things) and not clause.states


def _of_a_list(clause: Clause, before: Clause) -> bool:
    """Whether a denial is about the clause before it, too."""
    if not clause.things and not clause.states:
        return _only_names(before)
    plural = any(word.kind == "are" for word in clause.words) and clause.joined == {"and"}
    return plural and bool(before.things) and all(word.kind not in ("is", "are") for word in before.words)


def _opened(clauses: list[Clause]) -> list[Clause]:
    """Of "a cup, a dog or a cat" none is stated."""
    unsettled = [False] * len(clauses)
    for at, clause in enumerate(clauses):
        if at and "or" in clause.joined:
            first = at - 1
            while first and clauses[first].joined == {","} and not clauses[first].doubted:
                first -= 1
            unsettled[first : at + 1] = [True] * (at + 1 - first)
    return [replace(clause, open=is_open) for clause, is_open in zip(clauses, unsettled, strict=True)]


def _about(clauses: list[Clause], at: int, done: list[Clause]) -> list[Word]:
    """The things that a clause without any is about, as far as they were named."""
    start = at
    while start and clauses[start - 1].states and not clauses[start - 1].things:
        start -= 1
    end = next((i for i in range(at, len(clauses)) if clauses[i].things or not clauses[i].states), len(clauses))
    listed = _listed(clauses[:start])
    if len(listed) > 1 and len(listed) == end - start:
        return [listed[at - start]]
    if len(listed) > 1 and end - start == 1 and _of_all(clauses[at]):
        return listed
    return _last_subject(done[-1], clauses[at], len(listed)) if done else []


def _of_all(clause: Clause) -> bool:
    kinds = {word.kind for word in clause.words}
    return "count" not in kinds and ("are" in clause.joined or "both" in kinds)


def _listed(clauses: Sequence[Clause]) -> list[Word]:
    """The things of a list that the clauses end with, those asked for if there are any."""
    things: list[Word] = []
    for clause in reversed(clauses):
        if clause.states or not clause.things:
            break
        things = [*(clause.words[at] for at in clause.things), *things]
        if not clause.joined <= LISTING:
            break
    return [thing for thing in things if thing.asked] or things


def _last_subject(before: Clause, clause: Clause, listed: int) -> list[Word]:
    """What the clause before was about last, unless that is only a word that nobody knows."""
    if not before.things:
        return []
    if clause.words[0].kind == "which":
        return [before.words[before.things[-1]]]
    owned, placed = owners(before.words), places(before.words)
    place = any(word.kind == "place" for word in clause.words)
    if place and placed:
        about = placed[-1].subject
    elif owned:
        about = owned[-1][1]
    else:
        about = subject(before.words, before.things, len(before.words))
        if not before.words[about].asked or (place and (listed > 1 or led(before.words, about))):
            about = None
    return [] if about is None else [before.words[about]]


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
        >>> from unirl.rewards.attribute.lexicon import words_of
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
