"""The templates of `unirl new`: files as they will be, with `$names` to fill in (`string.Template`)."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

SUFFIX = ".template"
SUMMARIES = {
    "backbone": "a small unified transformer in plain torch, trainable from scratch",
    "reward": "the mean brightness of a drawing",
    "update": "REINFORCE with the mean of the group as baseline",
    "prompts": "things of one color, a fifth of them held out",
    "judge": "tells whether the colors that were asked for are in the picture",
}
"""What the implementation of each kind does at first."""
USES = {
    "backbone": "model:\n  backbone: {name}",
    "reward": "model:\n  rewards:\n    - class_path: {name}\n      init_args: {{weight: 0.5}}",
    "update": "model:\n  update: {name}",
    "prompts": "data:\n  prompts: {name}",
    "judge": "model:\n  judge: {name}",
}
"""How a config names one."""


def render(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    """The files of a package by path, in the order a reader wants them.

    Args:
        kind: A plugin kind.
        values: What the templates are filled with; those of `kind` and `package` name files, too.

    Raises:
        KeyError: a template asks for a value that is missing.
    """
    package = f"src/{values['package']}"
    filled = {
        path.replace("src/package", package): Template(text).substitute(values) for path, text in _templates(kind)
    }
    return dict(sorted(filled.items(), key=lambda item: (not item[0].startswith(("src/", "tests/")), item[0])))


def taken(kind: str, word: str) -> bool:
    """Whether the templates of a kind use a word themselves, so that a class of that name would hide something.

    Example:
        >>> taken("reward", "Tensor"), taken("reward", "Brightness")
        (True, False)
    """
    return any(re.search(rf"\b{word}\b", text) for path, text in _templates(kind) if path.endswith(".py"))


def _templates(kind: str) -> Iterator[tuple[str, str]]:
    for folder in (Path(__file__).parent / name for name in (kind, "common")):
        for file in folder.rglob(f"*{SUFFIX}"):
            yield file.relative_to(folder).as_posix().removesuffix(SUFFIX), file.read_text(encoding="utf-8")
