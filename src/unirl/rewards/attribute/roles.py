"""Roles of the words of English answers."""

from dataclasses import dataclass
from typing import Literal

Stating = Literal["object", "color", "count", "group", "relation"]
Connecting = Literal["article", "preposition", "with", "verb", "is", "are", "both", "its", "it", "which", "scene"]
Kind = Stating | Connecting | Literal["separator", "negation", "hedge", "partial", "owner", "possessive", "ignored"]
"""Role of a word: it states something, connects what is stated, separates clauses, negates, or hedges.

"partial" says that the clause is about some of the objects only, and an "owner" is an object that only says whose part
another one is.
"""


@dataclass(frozen=True)
class Word:
    """A word, or all words of one name.

    Args:
        kind: Its role. A "group" is a number where no other is given: "a pair of cups", "a single cup".
        value: Name of the object, color, number in digits, direction, or the word itself.
        requested: Whether it names an object of the prompt. Without known objects, any name does.
    """

    kind: Kind
    value: str
    requested: bool = False
