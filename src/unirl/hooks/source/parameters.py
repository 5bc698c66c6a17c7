"""What a class's constructor takes, with what it hands on to the constructors of its bases."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from unirl.hooks.source.finding import Definition, dotted_name


@dataclass(frozen=True)
class Parameter:
    """One argument of a constructor.

    Args:
        name: What configs call it.
        annotation: Its type as written; None where it has none.
        default: Its default as written, or the value of the constant that is named there; None where it is required.
        kind: "positional or keyword", "keyword only" or "positional only".
        description: From the docstring's `Args:`; may be empty.
    """

    name: str
    annotation: str | None
    default: str | None
    kind: str = "positional or keyword"
    description: str = ""

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is None


def parameters(line: Sequence[Definition]) -> dict[str, Parameter]:
    """The arguments of a class, by name, in order.

    Where a constructor takes `**kwargs` and calls `super().__init__(**kwargs)`, those of the next constructor follow,
    but for the ones that the call gives itself: jsonargparse, which reads configs, sees it so, too.

    Args:
        line: The class, and what it derives from in Python's order.
    """
    found: dict[str, Parameter] = {}
    given: set[str] = set()
    positional = 0
    for i, definition in enumerate(line):
        init = constructor(definition)
        if init is None and not _is_dataclass(definition):
            continue
        own = _arguments(definition, init) if init else _fields(line[i:])
        given |= {one.name for one in own[:positional]}
        found = found | {one.name: one for one in own if one.name not in given and one.name not in found}
        call = _handed_on(init) if init else None
        if call is None:
            break
        given |= {keyword.arg for keyword in call.keywords if keyword.arg}
        positional = len(call.args)
    return found


def constructor(definition: Definition) -> ast.FunctionDef | None:
    """The `__init__` that a class has of its own.

    Args:
        definition: The class.
    """
    functions = [node for node in definition.node.body if isinstance(node, ast.FunctionDef)]
    return next((node for node in reversed(functions) if node.name == "__init__"), None)


def _arguments(definition: Definition, init: ast.FunctionDef) -> list[Parameter]:
    args = init.args
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    found = [
        _parameter(definition, arg, default, "positional only" if arg in args.posonlyargs else "positional or keyword")
        for arg, default in zip(plain, defaults, strict=True)
    ]
    keywords = zip_longest(args.kwonlyargs, args.kw_defaults)
    return [*found[1:], *(_parameter(definition, arg, default, "keyword only") for arg, default in keywords)]


def _parameter(definition: Definition, arg: ast.arg, default: ast.expr | None, kind: str) -> Parameter:
    return Parameter(arg.arg, _annotation(arg.annotation), _default(definition, default), kind)


def _annotation(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None if node is None else ast.unparse(node)


def _default(definition: Definition, node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Name):
        for statement in definition.module.tree.body:
            value = getattr(statement, "value", None)
            if isinstance(value, ast.Constant) and node.id in _assigned(statement):
                return ast.unparse(value)
    return None if node is None else ast.unparse(node)


def _assigned(statement: ast.stmt) -> set[str | None]:
    if isinstance(statement, ast.Assign):
        return {dotted_name(target) for target in statement.targets}
    return {dotted_name(statement.target)} if isinstance(statement, ast.AnnAssign) else set()


def _handed_on(init: ast.FunctionDef) -> ast.Call | None:
    """The call of the next constructor that gets `**kwargs`."""
    if init.args.kwarg is None:
        return None
    for node in ast.walk(init):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            stars = [k.value for k in node.keywords if k.arg is None]
            if any(isinstance(star, ast.Name) and star.id == init.args.kwarg.arg for star in stars):
                return node
    return None


def _is_dataclass(definition: Definition) -> bool:
    decorators = [node.func if isinstance(node, ast.Call) else node for node in definition.node.decorator_list]
    return any((dotted_name(node) or "").rpartition(".")[2] == "dataclass" for node in decorators)


def _fields(line: Sequence[Definition]) -> list[Parameter]:
    return [field for definition in line if _is_dataclass(definition) for field in _dataclass_fields(definition)]


def _dataclass_fields(definition: Definition) -> Iterator[Parameter]:
    for node in definition.node.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation, default = _annotation(node.annotation), _default(definition, node.value)
        if isinstance(node.value, ast.Call) and (dotted_name(node.value.func) or "").endswith("field"):
            options = {keyword.arg: keyword.value for keyword in node.value.keywords}
            if isinstance(init := options.get("init"), ast.Constant) and init.value is False:
                continue
            default = _field_default(options)
        if "ClassVar" not in (annotation or ""):
            yield Parameter(node.target.id, annotation, default)


def _field_default(options: dict[str | None, ast.expr]) -> str | None:
    if factory := options.get("default_factory"):
        made = ast.unparse(factory)
        return {"list": "[]", "dict": "{}"}.get(made, f"{made}()")
    return ast.unparse(options["default"]) if "default" in options else None
