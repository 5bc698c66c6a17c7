"""Loading plugins: what one of them does wrong must name it and spare the others."""

import subprocess
import sys
from pathlib import Path

import pytest

from unirl.errors import UserError
from unirl.hooks.host import KINDS, Host, metadata

HEAD = "from unirl import hookimpl\n"


def plugin(hook: str, *names: str) -> str:
    body = "\n".join(f'    register("{name}", "pkg.{name}:Thing")' for name in names)
    return f"{HEAD}@hookimpl\ndef {hook}(register):\n{body}\n"


def entry_points(folder: Path, group: str) -> list[metadata.EntryPoint]:
    found = metadata.distributions(path=[str(folder)])
    return sorted((e for d in found for e in d.entry_points if e.group == group), key=lambda e: e.name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a distribution of one module, as pip would, for this test; nothing else is installed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "entry_points", lambda group: entry_points(tmp_path, group))

    def write(name: str, source: str, version: str = "1.0") -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[unirl]\n{name} = {name}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield write
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_registered_name_resolves_to_its_class_path(install, kind: str) -> None:
    install("goodplug", plugin(KINDS[kind], "thing"), "2.3")
    found = Host().registry[kind]["thing"]
    assert (found.distribution, found.version, found.path) == ("goodplug", "2.3", "pkg.thing:Thing")
    assert Host().resolve(kind, "thing") == "pkg.thing.Thing"


def test_one_name_may_serve_two_kinds(install) -> None:
    other = plugin("unirl_register_prompts", "same").replace("pkg.same", "pkg.other")
    install("twokinds", plugin("unirl_register_rewards", "same") + other)
    host = Host()
    assert (host.resolve("reward", "same"), host.resolve("prompts", "same")) == ("pkg.same.Thing", "pkg.other.Thing")


def test_an_unknown_name_offers_the_nearest(install) -> None:
    install("goodplug", plugin("unirl_register_judges", "shapes"))
    with pytest.raises(UserError, match=r"unknown judge 'shpaes'; nearest: shapes"):
        Host().resolve("judge", "shpaes")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit('go away')\n", "SystemExit: go away"),
        (HEAD + "@hookimpl\ndef unirl_register_rewards(register):\n    1 / 0\n", "ZeroDivisionError"),
        (plugin("unirl_register_reward", "x"), "no such hook: 'unirl_register_reward' (nearest: unirl_register_rew"),
        (HEAD + "@hookimpl\ndef unirl_register_rewards(registry): ...\n", "registry"),
        (plugin("unirl_register_rewards", "dotted.name"), "names have no dots"),
        (plugin("unirl_register_rewards", "x").replace(":Thing", ""), "package.module:Class"),
    ],
    ids=["import", "exit", "hook-raises", "misspelt", "argument", "dotted", "no-class"],
)
def test_a_plugin_that_fails_is_recorded_and_stops_nothing(install, source: str, reason: str) -> None:
    install("badplug", source, "0.9")
    install("zgoodplug", plugin("unirl_register_rewards", "fine"))
    host = Host()
    assert host.resolve("reward", "fine") == "pkg.fine.Thing"
    (failure,) = [f for f in host.failures if f.plugin == "badplug"]
    assert (failure.distribution, failure.version) == ("badplug", "0.9")
    assert reason in failure.reason
    with pytest.raises(UserError, match=r"unknown reward 'missing'.*'badplug' of badplug 0.9 did not load"):
        host.resolve("reward", "missing")


def test_a_plugin_that_fails_halfway_registers_nothing(install) -> None:
    install("half", plugin("unirl_register_rewards", "early") + "    raise ValueError('late')\n")
    assert "early" not in Host().registry["reward"]


def test_two_plugins_with_one_name_are_refused_by_both_names(install) -> None:
    install("plugone", plugin("unirl_register_rewards", "twice"), "1.1")
    install("plugtwo", plugin("unirl_register_rewards", "twice"), "2.2")
    with pytest.raises(UserError, match=r"reward 'twice'") as caught:
        Host()
    assert "plugone 1.1" in str(caught.value)
    assert "plugtwo 2.2" in str(caught.value)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from unirl.cli import main; main(['--help']); main(['plugins']); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
