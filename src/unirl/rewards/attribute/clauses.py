"""Clauses of English answers, each with the object that it is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from unirl.rewards.attribute.bindings import attribute_owners, has_preposition, main_object, spatial_relations
from unirl.rewards.attribute.lexicon import ATTRIBUTES, NUMBERS_AND_COLORS
from unirl.rewards.attribute.roles import Word

_DASHES = ("—", "–", "--")
LIST_SEPARATORS = frozenset(("and", "&", ","))
"""Separators between the objects of a list."""
Segment = tuple[list[Word], frozenset[str]]
"""The words of a clause, and the separators before it."""


@dataclass(frozen=True)
class Clause:
    """The words between two separators.

    Args:
        words: The words, without negations and hedges.
        separators: The separators before it, such as ",".
        negated: Whether it has a negation.
        starts_negated: Whether the negation is before its first object.
        hedged: Whether it has a hedge, so that its objects may exist or not.
        alternative: Whether it is one of several alternatives ("a cup or a dog").
        inherited: Whether its object is named in an earlier clause.
        partial: Whether it is about some of the objects only ("two of the cups are red").
        is_share: Whether its number is a part of a total before it ("three cups: one red, two blue").
    """

    words: tuple[Word, ...]
    separators: frozenset[str] = frozenset()
    negated: bool = False
    starts_negated: bool = False
    hedged: bool = False
    alternative: bool = False
    inherited: bool = False
    partial: bool = False
    is_share: bool = False

    @property
    def objects(self) -> list[int]:
        """Positions of its objects."""
        return [i for i, word in enumerate(self.words) if word.kind == "object"]

    @property
    def has_attributes(self) -> bool:
        """Whether it has a number, color or relation."""
        return any(word.kind in ATTRIBUTES for word in self.words)

    @property
    def only_names(self) -> bool:
        """Whether it names objects and states nothing about them."""
        return bool(self.objects) and not self.has_attributes


def parse_clauses(words: Sequence[Word]) -> list[Clause]:
    """The clauses of an answer. A clause without an object is about the object that was named before.

    As many clauses as there are objects in a list before them are about one each: "the cup and the dog are red and
    blue".

    Args:
        words: An answer.

    Example:
        >>> from unirl.rewards.attribute.lexicon import tokenize
        >>> [[w.value for w in clause.words] for clause in parse_clauses(tokenize("cup, dog: red, blue", {}))]
        [['cup'], ['dog'], ['cup', 'red'], ['dog', 'blue']]
    """
    clauses = _spread_negation([_clause(segment, separators) for segment, separators in segments(words)])
    clauses = _mark_alternatives([clause for clause in clauses if clause.objects or clause.has_attributes])
    resolved: list[Clause] = []
    for i, clause in enumerate(clauses):
        unnamed = clause.has_attributes and not clause.objects
        antecedents = _antecedents(clauses, i, resolved) if unnamed else []
        resolved += [replace(clause, words=(name, *clause.words), inherited=True) for name in antecedents] or [clause]
    return _mark_shares(resolved)


def _clause(words: Sequence[Word], separators: frozenset[str]) -> Clause:
    kinds = {word.kind for word in words}
    content = tuple(word for word in words if word.kind not in ("negation", "hedge", "partial"))
    order = [word.kind for word in words if word.kind in ("negation", "object", "are")]
    return Clause(
        content,
        separators,
        negated="negation" in kinds,
        starts_negated=order[:1] == ["negation"],
        hedged="hedge" in kinds,
        partial="partial" in kinds,
    )


def _spread_negation(clauses: list[Clause]) -> list[Clause]:
    """Negate all of a negated list: "the cup and the dog are missing", "I cannot see a cup and a dog"."""
    negated = [clause.negated for clause in clauses]
    starts_negated = [clause.starts_negated for clause in clauses]
    for i, clause in enumerate(clauses[1:], 1):
        previous = clauses[i - 1]
        continues_list = clause.separators == {"and"} and previous.only_names and clause.only_names
        if starts_negated[i - 1] and continues_list:
            negated[i] = starts_negated[i] = True
        if clause.negated and _negates_list(clause, previous):
            first = i - 1
            while first and clauses[first].separators <= LIST_SEPARATORS and not clauses[first - 1].has_attributes:
                first -= 1
            negated[first:i] = [True] * (i - first)
    return [replace(clause, negated=value) for clause, value in zip(clauses, negated, strict=True)]


def _negates_list(clause: Clause, previous: Clause) -> bool:
    """Whether a negated clause negates the clause before it, too."""
    if not clause.objects and not clause.has_attributes:
        return previous.only_names
    is_plural = any(word.kind == "are" for word in clause.words) and clause.separators == {"and"}
    return is_plural and bool(previous.objects) and all(word.kind not in ("is", "are") for word in previous.words)


def _mark_alternatives(clauses: list[Clause]) -> list[Clause]:
    """Mark the clauses of "a cup, a dog or a cat", none of which is stated."""
    alternative = [False] * len(clauses)
    for i, clause in enumerate(clauses):
        if i and "or" in clause.separators:
            first = i - 1
            while first and clauses[first].separators == {","} and not clauses[first].hedged:
                first -= 1
            alternative[first : i + 1] = [True] * (i + 1 - first)
    return [replace(clause, alternative=value) for clause, value in zip(clauses, alternative, strict=True)]


def _mark_shares(clauses: list[Clause]) -> list[Clause]:
    """Mark the clauses that divide a total: "three cups: one red, two blue" are three cups."""
    marked = list(clauses)
    for i, clause in enumerate(clauses):
        numbers = _numbers(clause)
        if len(numbers) != 1 or clause.negated or any(w.kind in ("color", "relation") for w in clause.words):
            continue
        (owner, total), *_ = numbers.items()
        shares = _shares(clauses[i + 1 :], owner, total)
        divided = sum(_numbers(share)[owner] for share in shares)
        if divided == total or (divided < total and all(share.inherited for share in shares)):
            marked[i + 1 : i + 1 + len(shares)] = [replace(share, is_share=True) for share in shares]
    return marked


def _shares(following: list[Clause], owner: str, total: int) -> list[Clause]:
    """The next clauses that describe a smaller number of the same objects."""
    return list(takewhile(lambda clause: _is_share(clause, owner, total), following))


def _numbers(clause: Clause) -> dict[str, int]:
    """The number of each object of a clause; none where a number is vague or an object has several."""
    owned = [(clause.words[i], owner) for i, owner in attribute_owners(clause.words) if clause.words[i].kind == "count"]
    numbers = {clause.words[o].value: int(w.value) for w, o in owned if o is not None and w.value.isdecimal()}
    return numbers if len(numbers) == len(owned) else {}


def _is_share(clause: Clause, owner: str, total: int) -> bool:
    describes = any(word.kind in ("color", "relation", "scene") for word in clause.words)
    return describes and not clause.negated and _numbers(clause).get(owner, total) < total


def _antecedents(clauses: list[Clause], i: int, resolved: list[Clause]) -> list[Word]:
    """The objects that a clause without any is about, as far as they were named."""
    start = i
    while start and clauses[start - 1].has_attributes and not clauses[start - 1].objects:
        start -= 1
    end = next((j for j in range(i, len(clauses)) if clauses[j].objects or not clauses[j].has_attributes), len(clauses))
    listed = _last_list(clauses[:start])
    if len(listed) > 1 and len(listed) == end - start:
        return [listed[i - start]]
    if len(listed) > 1 and end - start == 1 and _is_about_all(clauses[i]):
        return listed
    return _last_object(resolved[-1], clauses[i], len(listed)) if resolved else []


def _is_about_all(clause: Clause) -> bool:
    kinds = {word.kind for word in clause.words}
    return "count" not in kinds and ("are" in clause.separators or "both" in kinds)


def _last_list(clauses: Sequence[Clause]) -> list[Word]:
    """The objects of a list at the end of the clauses; those of the prompt if there are any."""
    listed: list[Word] = []
    for clause in reversed(clauses):
        if not clause.only_names:
            break
        listed = [*(clause.words[i] for i in clause.objects), *listed]
        if not clause.separators <= LIST_SEPARATORS:
            break
    return [word for word in listed if word.requested] or listed


def _last_object(previous: Clause, clause: Clause, list_length: int) -> list[Word]:
    """The object that the previous clause was about last, unless it is only an unknown word."""
    if not previous.objects:
        return []
    if clause.words[0].kind == "which":
        return [previous.words[previous.objects[-1]]]
    owners, relations = attribute_owners(previous.words), spatial_relations(previous.words)
    states_relation = any(word.kind == "relation" for word in clause.words)
    if states_relation and relations:
        position = relations[-1].subject
    elif owners:
        position = owners[-1][1]
    else:
        position = main_object(previous.words, previous.objects, len(previous.words))
        ambiguous = states_relation and (list_length > 1 or has_preposition(previous.words, position))
        if not previous.words[position].requested or ambiguous:
            position = None
    return [] if position is None else [previous.words[position]]


# --- separators ---


def segments(words: Sequence[Word]) -> list[Segment]:
    """The words between separators. "are" and ":" are separators after a list of objects.

    Args:
        words: An answer.

    Example:
        >>> from unirl.rewards.attribute.lexicon import tokenize
        >>> [[word.value for word in segment] for segment, _ in segments(tokenize("cup and dog are red or blue", {}))]
        [['cup'], ['dog'], ['red', 'blue']]
    """
    result: list[Segment] = []
    separators: frozenset[str] = frozenset()
    for i, word in enumerate(words):
        current = result[-1][0] if result and not separators else []
        if word.kind == "separator" and not _continues(words, i, current):
            separators |= {word.value}
        elif word.value in (":", "(") and _starts_shares(words, i, current):
            separators |= {","}
        elif current and _ends_list(word, result):
            separators |= {"are" if word.kind == "are" else word.value}
        elif word.kind != "separator":
            if separators or not result:
                result.append(([], separators))
            result[-1][0].append(word)
            separators = frozenset()
    return result


def _ends_list(word: Word, preceding: list[Segment]) -> bool:
    """Whether a word ends a list of objects: "the cup and the dog are", "cup, dog:"."""
    if len(preceding) < 2 or not preceding[-1][1] <= LIST_SEPARATORS or not (word.kind == "are" or word.value == ":"):
        return False
    kinds = [{word.kind for word in segment} for segment, _ in preceding[-2:]]
    return all("object" in segment and segment.isdisjoint(ATTRIBUTES) for segment in kinds)


def _starts_shares(words: Sequence[Word], i: int, current: list[Word]) -> bool:
    """Whether numbers of a total follow: "three cups: one red"."""
    is_total = {"object", "count"} <= {word.kind for word in current}
    return is_total and i + 1 < len(words) and words[i + 1].kind == "count"


def _continues(words: Sequence[Word], i: int, current: list[Word]) -> bool:
    """Whether the clause continues after the separator at a position."""
    following = list(takewhile(lambda word: word.kind != "separator", words[i + 1 :]))
    rules = {
        "or": _is_or_of_attributes,
        "and": _is_and_of_attributes,
        "&": _is_and_of_attributes,
        ",": _is_leading_relation,
        **dict.fromkeys(_DASHES, _is_label),
    }
    return words[i].value in rules and rules[words[i].value](current, following)


def _is_or_of_attributes(current: list[Word], following: list[Word]) -> bool:
    """True of "red or blue" and "left or right"; "a cup or a dog" are two clauses."""
    before, after = ([w.kind for w in part if w.kind in ATTRIBUTES | {"object"}] for part in (current, following))
    return bool(before and after) and "object" not in (before[-1], after[0])


def _is_and_of_attributes(current: list[Word], following: list[Word]) -> bool:
    """True of "a red and blue cup" and "three and four cups"; "red and blue" are two clauses."""
    object_follows = next((w.kind for w in following if w.kind not in NUMBERS_AND_COLORS), None) == "object"
    kinds = [part[i].kind for part, i in ((current, -1), (following, 0)) if part]
    same_kind = len(kinds) == 2 and kinds[0] == kinds[1] and kinds[0] in NUMBERS_AND_COLORS
    return object_follows and same_kind and all(word.kind != "object" for word in current)


def _is_leading_relation(current: list[Word], following: list[Word]) -> bool:
    """True of "on the left, a cup"; "left, a cup" and "on the left, a cup on the right" are two clauses."""
    kinds, after = {word.kind for word in current}, {word.kind for word in following}
    allowed = {"preposition", "article", "relation", "scene", "its", "it"}
    return {"preposition", "relation"} <= kinds <= allowed and "object" in after and "relation" not in after


def _is_label(current: list[Word], following: list[Word]) -> bool:
    """True of "left — a cup"; "a cup — red" are two clauses, the second of which is about the cup."""
    before, after = {word.kind for word in current}, {word.kind for word in following}
    is_attribute = not before.isdisjoint(ATTRIBUTES) and "object" not in before
    return is_attribute and "object" in after and after.isdisjoint(ATTRIBUTES)
