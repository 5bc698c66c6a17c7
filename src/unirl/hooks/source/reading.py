"""All that a user may want to know of a class, read from its file."""

import ast
from dataclasses import dataclass, replace

from docstring_parser import DocstringStyle, ParseError, parse

from unirl.errors import UserError
from unirl.hooks.source.ancestry import ancestors, bases
from unirl.hooks.source.errors import Unclear, Unusable
from unirl.hooks.source.finding import Definition, find
from unirl.hooks.source.parameters import Parameter, constructor, parameters

_HEADINGS = ("Args:", "Arguments:", "Parameters:")


@dataclass(frozen=True)
class ClassSource:
    """A class as its file describes it.

    Args:
        path: `package.module:Class` where it is defined, whatever re-exports it.
        doc: Its docstring, without indentation; may be empty.
        bases: What it derives from, as `package.module:Class`, or as written where that could not be found.
        parameters: What its constructor takes, in order, without `*args` and `**kwargs`.
    """

    path: str
    doc: str
    bases: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    @property
    def summary(self) -> str:
        """The docstring without the descriptions of arguments."""
        kept, inside = [], False
        for line in self.doc.splitlines():
            if line.strip() in _HEADINGS and not line.startswith(" "):
                inside = True
            elif line.strip() and not line.startswith(" "):
                inside = False
            if not inside:
                kept.append(line)
        return "\n".join(kept).strip()


def read(path: str) -> ClassSource:
    """A class, read without importing it.

    Args:
        path: `package.module:Class`; may be a re-export.

    Raises:
        UserError: there is no such class, or only running the code would tell.

    Example:
        >>> source = read("unirl.rewards:Reward")
        >>> source.path, [parameter.name for parameter in source.parameters]
        ('unirl.rewards.base:Reward', ['weight', 'standardize'])
    """
    try:
        definition = find(path)
    except (Unusable, Unclear) as error:
        raise UserError(str(error)) from error
    line = ancestors(definition)
    described: dict[str, str] = {}
    for found in reversed(line):
        described |= _descriptions(found)
    taken = [replace(one, description=described.get(name, "")) for name, one in parameters(line).items()]
    names = (base if isinstance(base, str) else base.path for base in bases(definition))
    return ClassSource(definition.path, _doc(definition.node), tuple(names), tuple(taken))


def _descriptions(definition: Definition) -> dict[str, str]:
    texts = [_doc(definition.node), _doc(constructor(definition))]
    try:
        parsed = [parse(text, DocstringStyle.GOOGLE) for text in texts]
    except ParseError:  # an author's own style: nothing to say about the arguments
        return {}
    found = (one for doc in parsed for one in doc.params)
    return {one.arg_name: " ".join((one.description or "").split()) for one in found}


def _doc(node: ast.ClassDef | ast.FunctionDef | None) -> str:
    return (ast.get_docstring(node) if node else None) or ""
