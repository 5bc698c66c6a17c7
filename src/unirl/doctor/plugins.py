"""Are the plugins whole, and is `unirl` ours?"""

from importlib import metadata

from packaging.utils import canonicalize_name

from unirl.doctor.findings import Finding
from unirl.errors import UserError
from unirl.hooks.host import Host, host
from unirl.hooks.loading import OWN


def check_plugins() -> list[Finding]:
    """What loaded, with its version, and what did not."""
    try:
        found = host()
    except UserError as error:
        return [Finding("error", "plugins", str(error), "unirl plugins lists them")]
    return [_loaded(found), *(_broken(str(plugin)) for plugin in found.inspected() if plugin.status == "failed")]


def check_import_name() -> list[Finding]:
    """Whether another installed distribution brings a package called `unirl`, and so may have overwritten this one."""
    owners = {canonicalize_name(name) for name in metadata.packages_distributions().get("unirl", [])}
    return [
        Finding(
            "warning",
            "import name",
            f"the distribution {other!r} also owns the import name unirl: files of both may be mixed",
            f"pip uninstall {other}, then pip install --force-reinstall --no-deps {OWN}",
        )
        for other in sorted(owners - {OWN})
    ]


def _loaded(found: Host) -> Finding:
    origins = dict.fromkeys(plugin.origin for plugin in found.plugins if plugin.status == "loaded")
    return Finding("ok", "plugins", ", ".join(origins))


def _broken(text: str) -> Finding:
    return Finding("warning", "plugins", text, "mend or uninstall it; nothing that this config names is of it")
