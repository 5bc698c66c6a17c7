"""Facts of short English answers: which object has which number, color and place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unirl.rewards.attribute.bindings import SpatialRelation, attribute_owners, spatial_relations
from unirl.rewards.attribute.clauses import Clause, parse_clauses
from unirl.rewards.attribute.lexicon import OPENERS, PAIRED, name_tokens, tokenize
from unirl.rewards.attribute.roles import Word
from unirl.types import Item

Facts = dict[tuple[str, ...], frozenset[str]]
"""Stated values by attribute and objects, such as `{("count", "cup"): {"2"}}`. Several values contradict each other.

A value begins with "not " where it is negated, and with "maybe " where it is hedged.
"""
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def extract_facts(text: str, objects: Sequence[Item] = ()) -> Facts:
    """The facts that an answer states.

    The order of clauses, articles, case, plurals and digits make no difference. A number or color belongs to the object
    that follows ("a red cup"), or precedes ("the cup is red"). Without an object, it belongs to the object named before
    ("cup: red"), otherwise to the objects of the prompt in their order: "red and blue" states the same as "the cup is
    red and the dog is blue" where the prompt asks for a red cup and a blue dog. "A is left of B", "B is right of A" and
    "B with A to its left" are the same fact. What is negated ("not red") or hedged ("at least two", "red or blue", "a
    cup or a dog") is not stated.

    Args:
        text: The answer.
        objects: The objects of the prompt. They identify names of several words, and the owners of attributes without
            an object.

    Example:
        >>> extract_facts("The dog is blue and the cup is red") == extract_facts("a red cup and a blue dog")
        True
        >>> extract_facts("2 cups")[("count", "cup")]
        frozenset({'2'})
    """
    stated: dict[tuple[str, ...], set[str]] = {}
    unnamed = 0  # clauses so far that stand for an object without naming it
    for clause in parse_clauses(tokenize(text, {name_tokens(item.name): item.name for item in objects})):
        for key, value in _clause_facts(clause, _DefaultOwner(objects, unnamed)):
            stated.setdefault(key, set()).add(value)
        unnamed += _stands_for_object(clause)
    return {key: frozenset(values) for key, values in stated.items()}


def recall(target: Facts, predicted: Facts) -> float:
    """Share of the target facts that are stated and not contradicted.

    The existence of an object counts only where the target states nothing else about it. An object that is said to be
    absent has no color and no place.

    Args:
        target: The facts of the correct answer, at least one.
        predicted: The facts of the answer that is scored.

    Returns:
        A number in [0, 1].

    Example:
        >>> recall(extract_facts("the cup is red and the dog is blue"), extract_facts("a red cup and a red dog"))
        0.5
    """
    described = {name for key in target if key[0] != "exists" for name in key[1:]}
    target = {key: value for key, value in target.items() if key[0] != "exists" or key[1] not in described}
    absence = {"count": frozenset({"0"}), "exists": frozenset({"not yes"})}
    absent = {key[1] for key, value in predicted.items() if value == absence.get(key[0])}
    stated = [_states(predicted.get(key, frozenset()), key, value, absent) for key, value in target.items()]
    return sum(stated) / len(stated)


def _states(predicted: frozenset[str], key: tuple[str, ...], value: frozenset[str], absent: set[str]) -> bool:
    """Whether the value, and nothing that contradicts it, is predicted. "not red" does not contradict blue."""
    if key[0] == "count":  # "not 2" may be a bound, such as more than two
        return predicted == value
    relevant = {v for v in predicted if not v.startswith("not ") or v.removeprefix("not ") in value}
    return relevant == value and absent.isdisjoint(key[1:])


@dataclass
class _DefaultOwner:
    """The objects that attributes without an object belong to: the first such clause is about the first object, etc.

    Args:
        objects: The objects of the prompt.
        index: Number of such clauses so far.
    """

    objects: Sequence[Item]
    index: int

    def of_attribute(self, attribute: str) -> str:
        """Name of the owner of a count or a color; empty without objects."""
        colored = [item.name for item in self.objects if attribute == "count" or item.color]
        candidates = colored or [item.name for item in self.objects]
        return candidates[min(self.index, len(candidates) - 1)] if candidates else ""

    def of_relation(self, subject: str, target: str) -> tuple[str, str]:
        """Names of subject and target, where a missing one is filled in from the relation of the prompt."""
        related = next(((i.name, self.objects[i.relation[1]].name) for i in self.objects if i.relation), ("", ""))
        partner = {related[0]: related[1], related[1]: related[0]}
        if not subject and not target:
            return related
        if not target or subject == target:
            return subject, partner.get(subject, related[1])
        return subject or partner.get(target, related[0]), target


def _stands_for_object(clause: Clause) -> bool:
    """Whether a clause is about an object of the prompt without naming it, as "none" in "none and blue"."""
    names = [clause.words[i] for i in clause.objects]
    is_opener = bool(names) and all(word.value in OPENERS for word in names)
    return not is_opener and not any(word.requested for word in names)


def _clause_facts(clause: Clause, default: _DefaultOwner) -> Iterator[tuple[tuple[str, ...], str]]:
    prefix = "not " if clause.negated else "maybe " if clause.alternative or clause.hedged else ""
    # Negated attributes ("the cup is not red") negate the attribute, not the object.
    if not clause.inherited and not (clause.negated and clause.has_attributes):
        for i in clause.objects:
            yield ("exists", clause.words[i].value), "maybe yes" if clause.hedged else f"{prefix}yes"
        for word in clause.words:
            if word.kind == "owner":
                yield ("exists", word.value), "maybe yes" if clause.hedged else f"{prefix}yes"
    for attribute, owner, value in _attributes(clause.words):
        if clause.is_share and attribute == "count":
            continue
        name = default.of_attribute(attribute) if owner is None else clause.words[owner].value
        partial = clause.partial and attribute != "count"
        yield (attribute, name), ("maybe " if partial and not prefix else prefix) + value
    for relation in spatial_relations(clause.words):
        subject, target = ("" if i is None else clause.words[i].value for i in (relation.subject, relation.target))
        key, value = _relation_fact(relation, *default.of_relation(subject, target))
        yield key, prefix + value


def _attributes(words: Sequence[Word]) -> list[tuple[str, int | None, str]]:
    """Colors and numbers with the positions of their objects. "A pair of cups" is two where no number is given."""
    owned = [(words[i], owner) for i, owner in attribute_owners(words)]
    counted = {owner for word, owner in owned if word.kind == "count"}
    paired = [i for i, word in enumerate(words) if word.value in PAIRED]
    groups = [(word.value, owner) for word, owner in owned if word.kind == "group" and owner not in counted]
    group_counts = {owner: number for number, owner in groups if number == "1" or owner not in paired}
    attributes = [(str(word.kind), owner, word.value) for word, owner in owned if word.kind != "group"]
    return attributes + [("count", owner, value) for owner, value in group_counts.items()]


def _relation_fact(relation: SpatialRelation, subject: str, target: str) -> tuple[tuple[str, ...], str]:
    """The canonical form of a relation, seen from the object whose name is first in the alphabet."""
    if subject <= target:
        return (relation.axis, subject, target), relation.direction
    return (relation.axis, target, subject), _OPPOSITE[relation.direction]
