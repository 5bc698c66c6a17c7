"""The site builds without a warning, and its API pages have every name that a public package exports."""

import importlib.util
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PUBLIC = (
    *("unirl", "unirl.backbones", "unirl.callbacks", "unirl.functional", "unirl.judges", "unirl.prompts"),
    *("unirl.rewards", "unirl.sampling", "unirl.testing", "unirl.training", "unirl.updates"),
)
"""Said here again: a package that the site forgets is found missing."""


def exported(package: str) -> list[str]:
    if not importlib.util.find_spec(package):
        return []
    return list(getattr(import_module(package), "__all__", ()))


OFFERED = [package for package in PUBLIC if exported(package)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text("utf-8")


@pytest.mark.parametrize("package", OFFERED)
def test_every_exported_name_has_an_anchor_on_its_page(site: Path, package: str) -> None:
    anchors = set(re.findall(r'id="([^"]+)"', page(site, f"api/{package}")))
    missing = [name for name in exported(package) if f"{package}.{name}" not in anchors]
    assert not missing


def test_the_readme_is_the_home_page(site: Path) -> None:
    home = page(site, ".")
    for heading in re.findall(r"^## (.+)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE):
        assert heading.replace("&", "&amp;") in home
    assert 'href="plugins/"' in home
    assert 'src="before_after.png"' in home


def test_links_out_of_the_site_lead_to_what_is_in_the_repository(site: Path) -> None:
    link = re.compile(r"https://github\.com/unirl/lightning-unirl/(?:blob|tree)/main/([^\"#<]+)")
    for html in site.rglob("*.html"):
        for target in link.findall(html.read_text("utf-8")):
            assert (ROOT / target).exists(), f"{html.relative_to(site)}: {target}"


def test_sections_that_are_our_own_are_shown_as_sections(site: Path) -> None:
    """`Shapes:`, `Source:` and `Example:`, of which griffe would make boxes, and text of examples."""
    for html in (site / "api").rglob("*.html"):
        shown = html.read_text("utf-8")
        assert not re.search(r'class="(admonition )?(shapes|source|example)"', shown), html
        assert "&gt;&gt;&gt; " not in re.sub(r"<pre.*?</pre>", "", shown, flags=re.DOTALL), html
