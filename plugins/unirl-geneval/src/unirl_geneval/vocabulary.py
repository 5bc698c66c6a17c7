"""GenEval's 80 classes, and their other names."""

CLASSES = (
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
"""COCO's classes in COCO's order, as GenEval spells them."""

OTHER_NAMES = {
    "motorcycle": ("motorbike",),
    "airplane": ("aeroplane",),
    "couch": ("sofa",),
    "tv": ("tvmonitor",),
    "computer mouse": ("mouse",),
    "tv remote": ("remote",),
    "computer keyboard": ("keyboard",),
}
"""What a detector may call a class instead. Spaces make no difference ("pottedplant")."""


def is_class(name: str, index: int) -> bool:
    """Whether a detector's label is the class of an index.

    Args:
        name: The label, such as "sofa".
        index: Of the class in COCO.

    Example:
        >>> is_class("sofa", 57), is_class("pottedplant", 58), is_class("chair", 57)
        (True, True, False)
    """
    known = (CLASSES[index], *OTHER_NAMES.get(CLASSES[index], ()))
    return _letters(name) in map(_letters, known)


def _letters(name: str) -> str:
    return "".join(name.lower().split())
