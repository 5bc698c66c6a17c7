"""The true answer to any question of the shapes world about any scene, read from the words of the question."""

import re
from collections.abc import Callable, Sequence

from unirl import UserError
from unirl_shapes.scenes import Scene, SceneObject, cell_relations
from unirl_shapes.vocabulary import GRID, NUMBERS, RELATIONS, SHAPES, counted, plural


def answer(question: str, scene: Scene) -> str:
    """The true answer to a question about a scene.

    It is "none" where the object is missing, and "many" where there is no single answer.

    Args:
        question: A question in the words of the world, such as "do you see a circle and a square ?".
        scene: Any scene.

    Raises:
        UserError: the question has another form than those of this world.

    Example:
        >>> scene = (SceneObject("circle", "red", 0), SceneObject("circle", "red", 3), SceneObject("ring", "blue", 5))
        >>> answer("how many circles do you see ?", scene), answer("do you see a ring and no square ?", scene)
        ('two circles', 'yes')
    """
    for pattern, _, rule in _FORMS:
        if match := pattern.fullmatch(question):
            return rule(scene, *match.groups())
    forms = ", ".join(repr(example) for _, example, _ in _FORMS)
    raise UserError(f"shapes: the question {question!r} has no true answer; ask in one of these forms: {forms}")


def _presence(scene: Scene, things: str) -> str:
    present = {placed.shape for placed in scene}
    return " and ".join(shape for shape in _shapes(things) if shape in present) or "none"


def _presence_and_absence(scene: Scene, things: str, absent: str) -> str:
    present = {placed.shape for placed in scene}
    return _yes(present.issuperset(_shapes(things)) and absent not in present)


def _count(scene: Scene, shapes: str) -> str:
    shape = _SINGULAR[shapes]
    return counted(shape, len(_find(scene, shape)))


def _comparison(scene: Scene, more: str, fewer: str) -> str:
    return _yes(len(_find(scene, _SINGULAR[more])) > len(_find(scene, _SINGULAR[fewer])))


def _color(scene: Scene, shape: str) -> str:
    colors = {placed.color for placed in _find(scene, shape)}
    if not colors:
        return "none"
    return colors.pop() if len(colors) == 1 else "many"


def _two_colors(scene: Scene, shape: str, other: str) -> str:
    return f"{_color(scene, shape)} and {_color(scene, other)}"


def _direction(scene: Scene, shape: str, target: str) -> str:
    objects, targets = _find(scene, shape), _find(scene, target)
    if not objects or not targets:
        return "none"
    if len(objects) > 1 or len(targets) > 1:
        return "many"
    relations = cell_relations(objects[0].cell, targets[0].cell)
    return " ".join(name.split()[0] for name in RELATIONS if name in relations)


def _location(scene: Scene, shape: str) -> str:
    objects = _find(scene, shape)
    if len(objects) != 1:
        return "many" if objects else "none"
    row, column = divmod(objects[0].cell, GRID)
    return f"{NUMBERS[row]} {NUMBERS[column]}"


def _find(scene: Scene, shape: str) -> list[SceneObject]:
    return [placed for placed in scene if placed.shape == shape]


def _shapes(things: str) -> Sequence[str]:
    return re.sub(r"\ban? ", "", things).split(" and ")


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


_SINGULAR = {plural(shape): shape for shape in SHAPES}
_ONE = f"({'|'.join(SHAPES)})"
_MANY = f"({'|'.join(_SINGULAR)})"
_THINGS = f"(an? (?:{'|'.join(SHAPES)})(?: and an? (?:{'|'.join(SHAPES)}))*)"
_FORMS: list[tuple[re.Pattern[str], str, Callable[..., str]]] = [
    (re.compile(form), example, rule)
    for form, example, rule in (
        (rf"do you see {_THINGS} \?", "do you see a circle and a square ?", _presence),
        (rf"do you see {_THINGS} and no {_ONE} \?", "do you see a circle and no square ?", _presence_and_absence),
        (rf"how many {_MANY} do you see \?", "how many circles do you see ?", _count),
        (rf"are there more {_MANY} than {_MANY} \?", "are there more circles than squares ?", _comparison),
        (rf"what color is the {_ONE} \?", "what color is the circle ?", _color),
        (rf"what color are the {_ONE} and the {_ONE} \?", "what color are the circle and the square ?", _two_colors),
        (rf"where is the {_ONE} from the {_ONE} \?", "where is the circle from the square ?", _direction),
        (rf"where is the {_ONE} \?", "where is the circle ?", _location),
    )
]
"""Each form of a question as a pattern, an example of it, and the rule that answers it."""
