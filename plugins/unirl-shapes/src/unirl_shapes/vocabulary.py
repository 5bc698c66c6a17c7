"""Shapes, colors, numbers and relations of the shapes world."""

SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.87, 0.10, 0.12),
    "orange": (1.00, 0.52, 0.00),
    "yellow": (0.98, 0.86, 0.08),
    "green": (0.12, 0.64, 0.22),
    "blue": (0.10, 0.34, 0.90),
    "purple": (0.58, 0.12, 0.72),
}
NUMBERS = ("one", "two", "three", "four")
DIRECTIONS = ("left", "right", "above", "below")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""GenEval's categories, in the order of its tables."""
COMPLEX = "complex"
"""Prompts that combine what these ask for singly, see `unirl_shapes.complex_examples`. They occur where asked for."""
ALL_CATEGORIES = (*CATEGORIES, COMPLEX)

GRID = 4
CELLS = GRID * GRID


def plural(shape: str) -> str:
    """The plural of a shape.

    Args:
        shape: One of `SHAPES`.

    Example:
        >>> plural("cross")
        'crosses'
    """
    return shape + ("es" if shape.endswith("s") else "s")


def with_article(noun: str) -> str:
    """A noun with "a" or "an".

    Args:
        noun: A noun, perhaps with adjectives.

    Example:
        >>> with_article("orange ring")
        'an orange ring'
    """
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def described(shape: str, number: int = 1, color: str | None = None) -> str:
    """Objects in the words of a prompt.

    Args:
        shape: One of `SHAPES`.
        number: 1 to 4.
        color: One of `COLORS`, or None.

    Example:
        >>> described("square", 2, "blue"), described("ring", color="orange")
        ('two blue squares', 'an orange ring')
    """
    words = [color] if color else []
    if number == 1:
        return with_article(" ".join([*words, shape]))
    return " ".join([NUMBERS[number - 1], *words, plural(shape)])


def counted(shape: str, number: int) -> str:
    """A number of a shape in words. More than four are "many".

    Args:
        shape: One of `SHAPES`.
        number: 0 or more.

    Example:
        >>> counted("circle", 3), counted("circle", 1), counted("circle", 0)
        ('three circles', 'one circle', 'zero circles')
    """
    words = ("zero", *NUMBERS)
    return f"{words[number] if number < len(words) else 'many'} {shape if number == 1 else plural(shape)}"
