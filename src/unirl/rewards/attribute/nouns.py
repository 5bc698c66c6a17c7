"""Nouns of English answers: names of several words, compounds ("cup holder"), and parts ("the cup's handle")."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from unirl.rewards.attribute.roles import Word

NOT_HEADS = frozenset(
    (
        *("there", "together", "alone", "too", "altogether", "total", "overall", "inside", "outside", "nearby", "away"),
        *("apart", "upright", "full", "empty", "lit", "made", "set", "hung", "kept", "against", "along", "around"),
        *(
            "across",
            "because",
            "since",
            "if",
            "as",
            "than",
            "so",
            "when",
            "through",
            "into",
            "onto",
            "off",
            "out",
            "up",
        ),
        *("down", "over", "near", "within", "toward", "towards", "behind", "that", "will", "would", "could", "should"),
        *("do", "does", "did", "now", "again", "today", "both", "each", "all", "half", "much", "such", "same", "per"),
        *(
            "shape",
            "object",
            "figure",
            "form",
            "item",
            "symbol",
            "thing",
            "icon",
            "animal",
            "like",
            "sit",
            "stand",
            "lie",
        ),
        *("yes", "ok", "okay", "image", "tall", "large", "big", "small", "high", "low", "open", "close", "closed"),
    )
)
"""Words after the name of an object that make no other object of it: "a cup alone", "a circle shape"."""
_NOUNS = frozenset(
    ("bed", "shed", "sled", "seed", "ring", "wing", "string", "spring", "ceiling", "building", "painting")
)
"""Nouns with the ending of a participle."""
_WHOLES = frozenset(
    (
        *("group", "bunch", "set", "row", "pile", "stack", "number", "lot", "variety", "kind", "type", "sort", "piece"),
        *("collection", "series", "line", "cluster", "amount", "count", "quantity", "total", "shape", "object", "item"),
        *("appearance", "position", "location", "placement", "presence", "size", "drawing", "painting", "sketch"),
        *("depiction", "rendering", "rest", "one", "first", "second", "third", "last", "case", "name", "answer"),
    )
)
"""Nouns before "of the cup" that are no parts of the cup."""


class Read(NamedTuple):
    """A word as it was read.

    Args:
        word: The word with its role.
        text: Its last token, not normalized.
        is_name: Whether it is a name of the prompt, or a known name of several words.
    """

    word: Word
    text: str
    is_name: bool


def resolve_nouns(read: Sequence[Read]) -> list[Word]:
    """The words of an answer with one word for each noun, and without those that state nothing.

    Consecutive unknown words are one name. Before a known name they are adjectives; after it they are the head of a
    compound, which is another object: a cup holder is no cup. In "the cup's handle" and "the handle of the cup", the
    cup is an owner.

    Args:
        read: All words, in their order.
    """
    words: list[Word] = []
    after_unknown = False
    for i, one in enumerate(read):
        if one.word.kind == "object":
            words.append(_noun(words, read, i, after_unknown))
        elif one.word.kind == "possessive" and words and words[-1].kind == "object" and _possesses(read[i + 1 :]):
            words[-1] = replace(words[-1], kind="owner")
        elif one.word.kind not in ("possessive", "ignored"):
            words.append(one.word)
        after_unknown = one.word.kind == "object" and not one.is_name
    return _with_owners(words)


def _noun(words: list[Word], read: Sequence[Read], i: int, after_unknown: bool) -> Word:
    """The object at a position, with the words before it that are parts of its name. Those are removed."""
    word = read[i].word
    if after_unknown:
        adjective = words.pop()
        return word if read[i].is_name else replace(word, value=f"{adjective.value} {word.value}")
    if not read[i].is_name and _is_compound(read, i):
        return replace(word, value=f"{words.pop().value} {word.value}")
    return word


def _possesses(following: Sequence[Read]) -> bool:
    """Whether a noun follows, perhaps after numbers and colors: "the cup's red handle", but not "the cup's red"."""
    rest = following[sum(1 for _ in takewhile(lambda one: one.word.kind in ("color", "count"), following)) :]
    return bool(rest) and rest[0].word.kind == "object" and (rest[0].is_name or _is_noun(rest[0].text))


def _is_compound(read: Sequence[Read], i: int) -> bool:
    """Whether an unknown word makes another object of the name before it."""
    if not i or not read[i - 1].is_name or not _is_noun(read[i].text):
        return False
    if read[i - 1].text != read[i - 1].word.value.split()[-1]:
        return False  # "two cups total": the first part of a compound is in the singular
    text = read[i].text
    if not text.endswith("s") or text.endswith("ss"):
        return True
    # "the dog jumps", but "two cup holders" and "cup holders"
    before = read[i - 2].word.kind if i > 1 else "separator"
    return before in ("count", "color", "group", "separator")


def _is_noun(text: str) -> bool:
    if text in _NOUNS:
        return True
    return text not in NOT_HEADS and text.removesuffix("s") not in NOT_HEADS and not text.endswith(("ing", "ed", "ly"))


def _with_owners(words: list[Word]) -> list[Word]:
    """Mark the cup of "the handle of the cup" as an owner."""
    for i in range(len(words) - 4):
        first, part, of, second, whole = words[i : i + 5]
        is_part = part.kind == "object" and not part.requested and part.value not in _WHOLES
        if first.value == second.value == "the" and is_part and of.value == "of" and whole.requested:
            words[i + 4] = replace(whole, kind="owner")
    return words
