"""What mkdocs does while it builds the site: pages made from other files, and links that lead out of `docs/`.

Nothing of the package is imported: griffe reads the sources.
"""

import json
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
PACKAGES = (
    "unirl",
    "unirl.training",
    "unirl.backbones",
    "unirl.sampling",
    "unirl.rewards",
    "unirl.updates",
    "unirl.functional",
    "unirl.prompts",
    "unirl.judges",
    "unirl.callbacks",
    "unirl.testing",
    "unirl.types",
    "unirl.errors",
)
"""What is public, in the order of the site. One that does not exist, or exports nothing, gets no page."""

COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's root that are pages as they stand."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")


def address(name: str) -> str:
    """One of the addresses in `[project.urls]`."""
    (found,) = re.findall(rf'^{name} = "(.+)"$', PROJECT, re.MULTILINE)
    return str(found)


def on_config(config: Any) -> Any:
    """Addresses come from pyproject.toml; `api` in the navigation becomes a page for each public package."""
    config.site_url = address("Documentation").rstrip("/") + "/"
    config.repo_url = address("Repository")
    config.repo_name = config.repo_url.removeprefix("https://github.com/")
    config.nav = [{**item, "API reference": api_nav()} if "API reference" in item else item for item in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file of `docs/` holds."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - the generator is of use without mkdocs

    made = {page: (ROOT / name).read_text("utf-8") for name, page in COPIED.items() if (ROOT / name).exists()}
    made |= {f"api/{package}.md": api_page(package) for package in documented()}
    for file in [*files]:
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            made[file.src_uri.removesuffix(".ipynb") + ".md"] = notebook_page(Path(file.abs_src_path))
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to what is in the repository, and not in the site, to the repository's web page."""
    copied_from = {made: name for name, made in COPIED.items()}
    here = copied_from.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def follow(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
        inside = COPIED.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
        inside = re.sub(r"\.ipynb$", ".md", inside)
        if inside and files.get_file_from_path(inside):
            return posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".") + (match[2] or "")
        if (ROOT / target).exists():
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            return f"{config.repo_url}/{kind}/main/{target}{match[2] or ''}"
        return match[0]

    return LINK.sub(follow, markdown)


@cache
def tree() -> griffe.Object:
    """The package as its sources say."""
    found = griffe.load("unirl", search_paths=[ROOT / "src"], allow_inspection=False)
    assert isinstance(found, griffe.Object)
    return found


@cache
def exports(package: str) -> tuple[str, ...]:
    """The `__all__` of a package; empty where there is no such package."""
    try:
        module = tree() if package == "unirl" else tree()[package.removeprefix("unirl.")]
    except KeyError:
        return ()
    return tuple(str(name) for name in module.exports or ())


def documented() -> list[str]:
    """The public packages that have something to show."""
    return [package for package in PACKAGES if exports(package)]


def home(package: str, name: str) -> str:
    """The package whose page has the documentation of a name: where several export it, the one it is written in."""
    where = tree()[f"{package}.{name}".removeprefix("unirl.")].canonical_path
    offering = [other for other in documented() if name in exports(other) and where.startswith(f"{other}.")]
    same = [other for other in offering if tree()[f"{other}.{name}".removeprefix("unirl.")].canonical_path == where]
    return max(same, key=len, default=package)


def api_nav() -> list[dict[str, str]]:
    """The API's part of the navigation."""
    return [{package: f"api/{package}.md"} for package in documented()]


def api_page(package: str) -> str:
    """The page of a package: what its docstring says, and each name that it exports."""
    summary = tree() if package == "unirl" else tree()[package.removeprefix("unirl.")]
    lines = [f"# {package}", "", summary.docstring.value if summary.docstring else "", ""]
    for name in exports(package):
        owner = home(package, name)
        if owner == package:
            lines += [f"::: {package}.{name}", ""]
        else:
            lines += [f"## {name} {{ #{package}.{name} data-toc-label='{name}' }}", ""]
            lines += [f"The same as [`{owner}.{name}`]({owner}.md#{owner}.{name}).", ""]
    return "\n".join(lines)


def notebook_page(path: Path) -> str:
    """A notebook as a page: its text, its code, and what it printed if that is kept in it."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
