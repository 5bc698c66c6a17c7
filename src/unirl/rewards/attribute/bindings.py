"""Which thing of a clause a number or color belongs to."""

import re
from collections.abc import Sequence

from unirl.rewards.attribute.lexicon import ATTRIBUTES, Word

_LEADS = frozenset(("article", "link", "with", "place"))
"""What opens a new phrase: "next to the red ..."."""
_ENDS = frozenset(("stop", "link", "with", "place", "its", "which"))
Owned = tuple[int, int | None]
"""The positions of a number or color, and of the thing it belongs to."""


def owners(words: Sequence[Word]) -> list[Owned]:
    """The owner of each number and color of a clause, None where the clause names no thing.

    In front of a thing it is that thing's, unless something keeps them apart: "the cup is red | the dog is blue". What
    stands behind is about the `subject` of what was said since. "cup red dog blue" goes in turns.

    Args:
        words: A clause.

    Example:
        >>> from unirl.rewards.attribute.lexicon import words_of
        >>> [owners(words_of(text, {})) for text in ("two cups", "cup red dog blue")]
        [[(0, 1)], [(1, 0), (3, 2)]]
    """
    things = [at for at, word in enumerate(words) if word.kind == "thing"]
    turns, closed = _turns(words), False
    since: list[int] = []
    found: list[Owned] = []
    for at, word in enumerate(words):
        if word.kind == "thing":
            since, closed = [*([] if closed else since), at], False
        elif word.kind in ATTRIBUTES:
            ahead = next((thing for thing in things if thing > at), None)
            closed = bool(since) and (ahead is None or _looks_back(words, since[-1], at, ahead, turns))
            found.append((at, subject(words, since, at) if closed else ahead))
    return found


def subject(words: Sequence[Word], things: Sequence[int], end: int) -> int:
    """What is said behind several things is about one of them: not about the dog of "the cup next to the dog is red".

    Words that nobody knows may be anything; those with an article or a number are things.

    Args:
        words: A clause.
        things: The positions of its things to choose from, one at least.
        end: Where it is said.
    """
    last = things[-1]
    if words[last].asked and any(word.kind == "which" for word in words[last:end]):
        return last
    free = [thing for thing in things if not _aside(words, thing)]
    sure = [thing for thing in free if words[thing - 1 if thing else 0].kind in ("article", *ATTRIBUTES)]
    asked = [thing for thing in things if words[thing].asked]
    return [*(thing for thing in free if thing in asked), *sure, *asked, *things][0]


def kinds_between(words: Sequence[Word], start: int, end: int) -> set[str]:
    """The kinds of the words between two positions. "Of" is left out: "a pair of cups" is one phrase."""
    return {word.kind for word in words[start + 1 : end] if word.value != "of"}


def led(words: Sequence[Word], thing: int) -> bool:
    """Whether "on", "from" and the like stand between a thing and what states something before it."""
    start = next((at for at in reversed(range(thing)) if words[at].kind in ("thing", "place", "stop")), -1)
    return "link" in kinds_between(words, start, thing)


def _aside(words: Sequence[Word], thing: int) -> bool:
    """Whether a thing is only there to say something about an earlier one."""
    before = next((at for at in reversed(range(thing)) if words[at].kind == "thing"), None)
    return before is not None and not kinds_between(words, before, thing).isdisjoint(("link", "with", "place"))


def _looks_back(words: Sequence[Word], behind: int, at: int, ahead: int, turns: int) -> bool:
    """Whether a number or color between two things is said of what came before."""
    before, after = (kinds_between(words, *ends) - ATTRIBUTES for ends in ((behind, at), (at, ahead)))
    if turns > 0 or (after <= {"is", "are", "article"} and not after <= {"article"}):
        return False  # red is the cup
    if before and before <= {"is", "are"} and not words[ahead].asked and not led(words, behind):
        return True  # the cup is red because
    parted = "article" in after and all(word.value != "of" for word in words[at:ahead])
    return parted or not after.isdisjoint(_ENDS) or (turns < 0 and before.isdisjoint(_LEADS))


def _turns(words: Sequence[Word]) -> int:
    """-1 where each thing has its number or color behind it, as in "cup red dog blue"; 1 in "red: cup blue: dog"."""
    letters = {**dict.fromkeys(ATTRIBUTES, "A"), "thing": "U"}
    order = "".join("T" if w.asked else ":" if w.value == ":" else letters.get(w.kind, "") for w in words)
    if re.fullmatch(":*(A+:[TU]){2,}", order):
        return 1
    order = re.sub("A+", "A", order.replace(":", ""))
    return -any(re.fullmatch("(TA){2,}", text) for text in (order.replace("U", "T"), order.replace("U", "")))
