"""The objects, colors, counts and relations of GenEval-style prompts, and their sentences."""

from unirl.prompts.words import NUMBERS, article, plural
from unirl.types import Example, Item

COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "computer mouse", "tv remote"),
    *("computer keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock"),
    *("vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""COCO's 80 classes as GenEval spells them, the only objects in its prompts."""

EXTRA = (
    *("rabbit", "fox", "wolf", "squirrel", "deer", "camel", "kangaroo", "pig", "goat", "lion", "monkey", "turtle"),
    *("frog", "octopus", "crab", "butterfly", "lemon", "pineapple", "watermelon", "strawberry", "pear", "tomato"),
    *("pumpkin", "mushroom", "eggplant", "egg", "pretzel", "croissant", "cookie", "lollipop", "teapot", "kettle"),
    *("frying pan", "plate", "blender", "spatula", "candle", "tent", "lamp", "pillow", "basket", "bucket", "broom"),
    *("ladder", "bathtub", "wardrobe", "mailbox", "unicycle", "hammer", "wrench", "screwdriver", "shovel", "rake"),
    *("wheelbarrow", "guitar", "violin", "piano", "drum", "trumpet", "saxophone", "accordion", "ukulele", "hat"),
    *("helmet", "crown", "boot", "mitten", "scarf", "sweater", "sock", "sunglasses", "headphones", "camera"),
    *("telescope", "microscope", "envelope", "hourglass", "globe", "typewriter", "pencil"),
)
"""80 other everyday objects: none is a COCO class or a synonym, and each name has a word that no COCO class has."""

OBJECTS = COCO + EXTRA
"""All objects of the prompts."""

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")

COUNTS = (2, 3, 4)

RELATIONS = ("left of", "right of", "above", "below")

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

PAIRED = frozenset({"skis", "scissors", "sunglasses", "headphones"})
"""Names without a singular: "a pair of scissors"."""

UNCOLORED = frozenset({"person", "orange"})
"""Objects whose color is not asked for: the color of a person is unclear, and "orange" is a color itself."""

UNCOUNTED = frozenset({"broccoli"})
"""Uncountable nouns."""


def one(name: str, color: str | None = None) -> str:
    """A singular object with its article.

    Args:
        name: One of `OBJECTS`, or any noun in the singular.
        color: Its color, or None.

    Example:
        >>> one("orange"), one("scissors"), one("cup", "orange"), one("skis", "red")
        ('an orange', 'a pair of scissors', 'an orange cup', 'a pair of red skis')
    """
    colored = f"{color} {name}" if color else name
    return f"a pair of {colored}" if name in PAIRED else article(colored)


def many(name: str) -> str:
    """The plural of an object.

    Args:
        name: One of `OBJECTS`, or any noun in the singular.

    Example:
        >>> many("person"), many("wine glass"), many("scissors")
        ('people', 'wine glasses', 'pairs of scissors')
    """
    return f"pairs of {name}" if name in PAIRED else plural(name)


def be(name: str) -> str:
    """The form of "to be" that agrees with "the NAME".

    Args:
        name: One of `OBJECTS`, or any noun in the singular.

    Example:
        >>> be("cup"), be("scissors")
        ('is', 'are')
    """
    return "are" if name in PAIRED else "is"


def single_object(name: str) -> Example:
    """An object."""
    return Example(
        prompt=f"a photo of {one(name)}",
        question="What is the main object in the picture?",
        answer=name,
        category="single_object",
        objects=(Item(name),),
    )


def two_object(first: str, second: str) -> Example:
    """Two objects."""
    return Example(
        prompt=f"a photo of {one(first)} and {one(second)}",
        question="What two objects are in the picture?",
        answer=f"There is {one(first)} and {one(second)}",
        category="two_object",
        objects=(Item(first), Item(second)),
    )


def counting(name: str, count: int, companion: str | None = None) -> Example:
    """An exact number of an object, perhaps with another object."""
    addition = f" and {one(companion)}" if companion else ""
    return Example(
        prompt=f"a photo of {NUMBERS[count]} {many(name)}{addition}",
        question=f"How many {many(name)} are in the picture?",
        answer=f"{NUMBERS[count]} {many(name)}",
        category="counting",
        objects=(Item(name, count), *([Item(companion)] if companion else [])),
        exclude=(Item(name, count + 1),),
    )


def colors(name: str, color: str, companion: str | None = None) -> Example:
    """An object of a color, perhaps with another object."""
    addition = f" and {one(companion)}" if companion else ""
    return Example(
        prompt=f"a photo of {one(name, color)}{addition}",
        question=f"What color {be(name)} the {name}?",
        answer=color,
        category="colors",
        objects=(Item(name, color=color), *([Item(companion)] if companion else [])),
    )


def position(name: str, relation: str, target: str) -> Example:
    """An object in a relation to a target. The target is the first item, as in GenEval's metadata."""
    return Example(
        prompt=f"a photo of {one(name)} {relation} {one(target)}",
        question=f"Where {be(name)} the {name} in relation to the {target}? Answer in one sentence.",
        answer=f"The {name} {be(name)} {relation} the {target}",
        category="position",
        objects=(Item(target), Item(name, relation=(relation, 0))),
    )


def color_attr(first: str, first_color: str, second: str, second_color: str) -> Example:
    """Two objects of different colors."""
    return Example(
        prompt=f"a photo of {one(first, first_color)} and {one(second, second_color)}",
        question=f"What color {be(first)} the {first} and what color {be(second)} the {second}?",
        answer=f"The {first} {be(first)} {first_color} and the {second} {be(second)} {second_color}",
        category="color_attr",
        objects=(Item(first, color=first_color), Item(second, color=second_color)),
    )
