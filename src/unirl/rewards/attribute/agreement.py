"""What an English answer of a few words states: which thing has which number, color and place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unirl.rewards.attribute.bindings import owners
from unirl.rewards.attribute.clauses import Clause, clauses_of
from unirl.rewards.attribute.lexicon import OPENERS, PAIRED, Word, name_parts, words_of
from unirl.rewards.attribute.relations import Place, places
from unirl.types import Item

Facts = dict[tuple[str, ...], frozenset[str]]
"""What is stated by what it is about, such as `("count", "cup")`; more than one value contradict each other."""
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def facts(text: str, objects: Sequence[Item] = ()) -> Facts:
    """What an answer states. Order of clauses, articles, case, plurals and digits make no difference.

    A number or color in front of a thing is that thing's; behind it, too ("the cup is red"). Words without a thing are
    about the thing named just before ("cup: red"), else about the objects asked for, in their order: of a red cup and a
    blue dog, "red and blue" says the same as "the cup is red and the dog is blue". "A is left of B", "B is right of A"
    and "B with A to its left" are one fact. What is denied ("not red") or left open ("at least two", "red or blue", "a
    cup or a dog") is not stated.

    Args:
        text: The answer.
        objects: What was asked for: names of several words, and what bare words are about.

    Example:
        >>> facts("The dog is blue and the cup is red") == facts("a red cup and a blue dog")
        True
        >>> facts("2 cups")[("count", "cup")]
        frozenset({'2'})
    """
    stated: dict[tuple[str, ...], set[str]] = {}
    bare = 0
    for clause in clauses_of(words_of(text, {name_parts(item.name): item.name for item in objects})):
        for key, value in _stated(clause, _Asked(objects, bare)):
            stated.setdefault(key, set()).add(value)
        bare += _takes_a_turn(clause)
    return {key: frozenset(values) for key, values in stated.items()}


def agreement(wanted: Facts, got: Facts) -> float:
    """Share in [0, 1] of the wanted facts that were stated and not contradicted.

    That a thing is there is only wanted where nothing else is said about it. A thing that is not there has no color and
    no place, whatever is said of it.

    Args:
        wanted: What the right answer states; something.
        got: What was stated.

    Example:
        >>> agreement(facts("the cup is red and the dog is blue"), facts("a red cup and a red dog"))
        0.5
    """
    described = {name for key in wanted if key[0] != "there" for name in key[1:]}
    wanted = {key: value for key, value in wanted.items() if key[0] != "there" or key[1] not in described}
    nothing = {"count": {"0"}, "there": {"not yes"}}
    absent = {key[1] for key, value in got.items() if value == nothing.get(key[0])}
    met = [_says(got.get(key, frozenset()), key, value, absent) for key, value in wanted.items()]
    return sum(met) / len(met)


def _says(got: frozenset[str], key: tuple[str, ...], value: frozenset[str], absent: set[str]) -> bool:
    """Whether this and nothing against it was stated; of a color or place, "not red" is nothing against blue."""
    if key[0] == "count":  # "not 2" may be a bound: more than two
        return got == value
    stated = {one for one in got if not one.startswith("not ") or one.removeprefix("not ") in value}
    return stated == value and absent.isdisjoint(key[1:])


@dataclass
class _Asked:
    """What words without a thing are about: the first such clause is about the first object, and so on."""

    objects: Sequence[Item]
    index: int

    def thing(self, slot: str) -> str:
        colored = [item.name for item in self.objects if slot == "count" or item.color]
        fitting = colored or [item.name for item in self.objects]
        return fitting[min(self.index, len(fitting) - 1)] if fitting else ""

    def ends(self, subject: str, target: str) -> tuple[str, str]:
        """The names at both ends of a relation, where one that is missing is the other one asked for."""
        related = next(((i.name, self.objects[i.relation[1]].name) for i in self.objects if i.relation), ("", ""))
        swapped = {related[0]: related[1], related[1]: related[0]}
        if not subject and not target:
            return related
        if not target or subject == target:
            return subject, swapped.get(subject, related[1])
        return subject or swapped.get(target, related[0]), target


def _takes_a_turn(clause: Clause) -> bool:
    """Whether the clause stands for an object without naming it, as "none" does in "none and blue"."""
    things = [clause.words[at] for at in clause.things]
    opens = bool(things) and all(thing.value in OPENERS for thing in things)
    return not opens and not any(thing.asked for thing in things)


def _stated(clause: Clause, asked: _Asked) -> Iterator[tuple[tuple[str, ...], str]]:
    so = "not " if clause.denied else "maybe " if clause.open or clause.doubted else ""
    if not clause.carried and not (clause.denied and clause.states):  # then it is something else that is denied
        for at in clause.things:
            yield ("there", clause.words[at].value), "maybe yes" if clause.doubted else f"{so}yes"
    for slot, owner, value in _attributes(clause.words):
        yield (slot, asked.thing(slot) if owner is None else clause.words[owner].value), so + value
    for place in places(clause.words):
        name, target = ("" if at is None else clause.words[at].value for at in (place.subject, place.target))
        key, value = _placed(place, *asked.ends(name, target))
        yield key, so + value


def _attributes(words: Sequence[Word]) -> list[tuple[str, int | None, str]]:
    """Colors and numbers with the positions of their things; "a pair of cups" is two where nothing else counts them."""
    owned = [(words[at], owner) for at, owner in owners(words)]
    counted = {owner for word, owner in owned if word.kind == "count"}
    one = [at for at, word in enumerate(words) if word.value in PAIRED]
    groups = [(word.value, owner) for word, owner in owned if word.kind == "group" and owner not in counted]
    grouped = {owner: number for number, owner in groups if number == "1" or owner not in one}
    said = [(str(word.kind), owner, word.value) for word, owner in owned if word.kind != "group"]
    return said + [("count", owner, value) for owner, value in grouped.items()]


def _placed(place: Place, name: str, target: str) -> tuple[tuple[str, ...], str]:
    """One way to say it: from the name that comes first in the alphabet."""
    if name <= target:
        return (place.axis, name, target), place.end
    return (place.axis, target, name), _OPPOSITE[place.end]
