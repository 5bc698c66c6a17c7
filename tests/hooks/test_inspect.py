"""Reading classes from source: the same as Python and jsonargparse see, without importing them."""

import inspect
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from unirl.errors import UserError
from unirl.hooks.host import host
from unirl.hooks.inspect import ClassSource, problem, read


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes files of packages that raise when imported, and puts their folder on the path."""
    monkeypatch.syspath_prepend(tmp_path)

    def files(**sources: str) -> Path:
        for name, source in sources.items():
            file = tmp_path / f"{name.replace('__', '/').replace('/init', '/__init__')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("raise RuntimeError('imported')\n" + textwrap.dedent(source))
        return tmp_path

    return files


def test_installed_classes_read_as_python_imports_them() -> None:
    registered = [(kind, item.path) for kind, items in host().registry.items() for item in items.values()]
    failures = [f"{path}: {text}" for kind, path in registered for text in differences(kind, path)]
    assert not failures, "\n".join(failures)


def differences(kind: str, path: str) -> Iterator[str]:
    """Where the source of a class differs from the imported class."""
    module, _, name = path.partition(":")
    cls = getattr(import_module(module), name)
    source = read(path)
    if source.path != f"{cls.__module__}:{cls.__qualname__}":
        yield f"path {source.path}"
    if source.doc != inspect.getdoc(cls):
        yield f"docstring {source.doc!r}"
    if reason := problem(kind, path):
        yield reason
    yield from parameter_differences(source, cls)


def parameter_differences(source: ClassSource, cls: type) -> Iterator[str]:
    expected = list(inspect.signature(cls).parameters.values())
    if (names := [one.name for one in source.parameters]) != [one.name for one in expected]:
        yield f"parameters {names}"
        return
    for got, real in zip(source.parameters, expected, strict=True):
        if got.required != (real.default is real.empty):
            yield f"{got.name} has the default {got.default}"
        elif not got.required and eval(got.default or "", vars(sys.modules[cls.__module__])) != real.default:
            yield f"{got.name} has the default {got.default}, expected {real.default}"
        if not got.description:
            yield f"{got.name} has no description"


LAYOUTS = {
    "module": {"readone": "class Thing: ..."},
    "package": {"readone__init": "from .inner import Thing as Thing", "readone__inner": "class Thing: ..."},
    "renamed": {"readone__init": "from .inner import Other as Thing", "readone__inner": "class Other: ..."},
    "absolute": {"readone__init": "from readone.a.b import Thing", "readone__a__b": "class Thing: ..."},
    "upwards": {
        "readone__init": "from .a import Thing",
        "readone__a__init": "from ..c import Thing",
        "readone__c": "class Thing: ...",
    },
    "star": {"readone__init": "from .inner import *", "readone__inner": "class Thing: ..."},
    "attribute": {"readone__init": "from . import inner\nThing = inner.Thing", "readone__inner": "class Thing: ..."},
    "alternative": {"readone": "try:\n    from no_such import Thing\nexcept ImportError:\n    class Thing: ..."},
    "fallback": {
        "readone__init": "try:\n    from .inner import Thing\nexcept ImportError:\n    Thing = None",
        "readone__inner": "class Thing: ...",
    },
    "assigned fallback": {
        "readone": "class Slow: ...\ntry:\n    from no_such import Thing\nexcept ImportError:\n    Thing = Slow",
    },
    "circle": {
        "readone__init": "from .inner import *\nfrom .inner import Thing",
        "readone__inner": "from readone import *\nclass Thing: ...",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_class_is_found_through_re_exports_without_import(write, layout: str) -> None:
    write(**LAYOUTS[layout])
    where = next(name for name, source in LAYOUTS[layout].items() if "class " in source)
    name = {"renamed": "Other", "assigned fallback": "Slow"}.get(layout, "Thing")
    assert read("readone:Thing").path == f"{where.replace('__init', '').replace('__', '.')}:{name}"
    assert not any(module.startswith("readone") for module in sys.modules)


def test_nested_namespace_packages(write) -> None:
    write(nspace__deep__module="class Thing: ...")
    assert read("nspace.deep.module:Thing").path == "nspace.deep.module:Thing"


def test_a_module_that_was_loaded_from_a_path_is_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "somewhere.py"
    file.write_text("class Thing:\n    def __init__(self, size: int = 3): ...")
    loaded = type(sys)("loaded_by_path")
    loaded.__file__, loaded.__spec__ = str(file), None
    monkeypatch.setitem(sys.modules, "loaded_by_path", loaded)
    (size,) = read("loaded_by_path:Thing").parameters
    assert (size.name, size.annotation, size.default) == ("size", "int", "3")


def test_a_file_that_changes_is_read_again(write) -> None:
    write(changes="class First: ...")
    assert "Second" in (problem("reward", "changes:Second") or "")
    write(changes="from unirl.rewards import Reward\nclass Second(Reward): ...")
    assert problem("reward", "changes:Second") is None


def names(path: str) -> list[str]:
    return [parameter.name for parameter in read(path).parameters]


def test_parameters_follow_kwargs_as_in_jsonargparse(write) -> None:
    write(
        params="""
        from dataclasses import dataclass, field
        from typing import ClassVar
        from unirl.rewards.base import Reward

        SIZE = 64

        class None_(Reward):
            '''Nothing of its own.'''

        class More(Reward):
            def __init__(self, words: "int", *rest, size=SIZE, **kwargs):
                super().__init__(**kwargs)

        class Most(More):
            '''Most.

            Args:
                weight: Mine.
            '''
            def __init__(self, most=1, **kwargs):
                super().__init__(3, weight=2.0, **kwargs)

        class Closed(Reward):
            def __init__(self, words=1, **kwargs):
                self.options = kwargs

        @dataclass
        class Fields(Reward):
            low: float
            names: list[str] = field(default_factory=list)
            kept: ClassVar[int] = 3
            hidden: int = field(default=1, init=False)

        @dataclass
        class Derived(Fields):
            low: float = 1.0
            last: int = 3

        class Reward(Reward):
            '''Another of the same name.'''
        """
    )
    assert names("params:None_") == ["weight", "standardize"]
    assert names("params:More") == ["words", "size", "weight", "standardize"]
    assert names("params:Most") == ["most", "size", "standardize"]
    assert names("params:Closed") == ["words"]
    assert names("params:Fields") == ["low", "names"]
    assert names("params:Derived") == ["low", "names", "last"]
    assert names("params:Reward") == ["weight", "standardize"]
    words, size, weight, _ = read("params:More").parameters
    assert (words.annotation, words.required, words.kind) == ("int", True, "positional or keyword")
    assert (size.annotation, size.default, size.kind) == (None, "64", "keyword only")
    assert weight.description.startswith("Weight in the sum of all rewards.")
    assert read("params:Fields").parameters[1].default == "[]"


BROKEN = {
    "no such module": ("nowhere.module:Thing", "no module 'nowhere'"),
    "no such part": ("broken.rewardz:Thing", "no module 'broken.rewardz'; in 'broken' nearest: rewards"),
    "not a package": ("broken.rewards.x:Thing", "no module 'broken.rewards.x': 'broken.rewards' is not a package"),
    "no such class": ("broken.rewards:Politenes", "has no class 'Politenes'; nearest: Politeness"),
    "function": ("broken.rewards:make", "'broken.rewards:make' is a function, not a class"),
    "value": ("broken.rewards:LIMIT", "'broken.rewards:LIMIT' is 3, not a class"),
    "module": ("broken:rewards", "is a module, not a class"),
    "syntax": ("broken.syntax:Thing", "module 'broken.syntax' is not valid Python: line 2: '(' was never closed"),
    "other kind": ("broken.rewards:Judging", "'broken.rewards:Judging' is a Judge, expected a Reward"),
    "no kind": ("broken.rewards:Plain", "is not a Reward: it does not derive from unirl.rewards.Reward"),
}
FINE = {
    "derived": "broken.rewards:Politeness",
    "twice derived": "broken.rewards:Gentle",
    "generic": "broken.rewards:Generic_",
    "called": "broken.rewards:Made",
    "unknown base": "broken.rewards:Mixed",
    "made by getattr": "broken.lazy:Anything",
    "rebound": "broken.rewards:Decorated",
    "unpacked": "broken.rewards:Left",
}


@pytest.fixture
def broken(write) -> None:
    write(
        broken__init="from . import rewards",
        broken__syntax="print(",
        broken__lazy="def __getattr__(name): ...",
        broken__rewards="""
        from typing import Generic, TypeVar
        from unirl.judges import Judge
        import unirl.rewards
        from unirl.rewards import Reward
        from no_such_package import Base, wrap
        T = TypeVar("T")
        LIMIT = 3
        def make(): ...
        class Politeness(Reward): ...
        class Gentle(Politeness): ...
        class Generic_(unirl.rewards.Reward, Generic[T]): ...
        Made = type("Made", (Reward,), {})
        class Mixed(Base): ...
        class Judging(Judge): ...
        class Plain: ...
        class Decorated(Reward): ...
        Decorated = wrap(Decorated)
        Left, Right = wrap(Reward), wrap(Reward)
        """,
    )


def test_a_class_that_cannot_be_used_has_a_reason_of_one_line(broken) -> None:
    reasons = {case: problem("reward", path) or "" for case, (path, _) in BROKEN.items()}
    wrong = {case: reasons[case] for case, (_, text) in BROKEN.items() if text not in reasons[case]}
    assert not wrong
    assert not [reason for reason in reasons.values() if "\n" in reason]


def test_a_class_that_can_be_used_or_is_unknown_has_no_reason(broken) -> None:
    assert {case: problem("reward", path) for case, path in FINE.items()} == dict.fromkeys(FINE)


def test_a_class_created_at_run_time_is_not_read(broken) -> None:
    with pytest.raises(UserError, match="created when the module runs"):
        read("broken.rewards:Made")


def test_a_class_in_a_zip_file_has_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("zipped.py", "class Thing: ...")
    monkeypatch.syspath_prepend(tmp_path / "packed.zip")
    assert problem("reward", "zipped:Thing") is None


def test_reading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from unirl.hooks.inspect import problem, read; from unirl.hooks.host import host\n"
        "for kind, items in host().registry.items():\n"
        "    for item in items.values(): read(item.path), problem(kind, item.path)\n"
        "sys.exit(', '.join({'torch', 'transformers', 'lightning', 'unirl.rewards'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
