"""Finding and reading checkpoint files, with errors a user can act on. Shared by all backbones."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unirl.errors import UserError


def locate(path_or_id: str, inside: Path | None = None, files: Sequence[str] | None = None) -> Path:
    """The folder of a checkpoint.

    Args:
        path_or_id: A local folder; `package:folder` for files that a Python package ships; or a hub id.
        inside: A folder in which to look first for a relative path.
        files: What to fetch of a hub checkpoint, as patterns such as "*.json"; all of it by default.

    Raises:
        UserError: nothing of that name is there, and the hub has not got it or cannot be reached.
    """
    return local(path_or_id, inside) or _from_hub(path_or_id, files)


def local(path_or_id: str, inside: Path | None = None) -> Path | None:
    """The folder of a checkpoint on this machine; None for a hub id. Arguments as for `locate`.

    Raises:
        UserError: it is no hub id, and nothing of that name is there.
    """
    try:
        for candidate in ([inside / path_or_id] if inside else []) + [Path(path_or_id).expanduser()]:
            if candidate.is_dir():
                return candidate
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no such user's home
        raise UserError(f"checkpoint {path_or_id[:60]!r} cannot be a folder ({reason(error)})") from None
    package, colon, folder = path_or_id.partition(":")
    if colon and package.isidentifier():
        return _packaged(path_or_id, package, folder)
    if path_or_id.count("/") != 1 or path_or_id.startswith((".", "/", "~")):
        tried = f" (also looked inside {inside})" if inside else ""
        raise UserError(
            f"no checkpoint at {path_or_id!r}{tried}: give a local folder, package:folder, or a hub id owner/name"
        )
    return None


def _packaged(spec: str, package: str, folder: str) -> Path:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"checkpoint {spec!r}: package {package!r} cannot be imported ({error}); install it") from None
    inside = list(getattr(module, "__path__", ()))
    if not inside:
        raise UserError(f"checkpoint {spec!r}: {package!r} is a single module, which holds no folders")
    path = Path(inside[0]) / folder
    if not path.is_dir():
        have = ", ".join(sorted(p.parent.name for p in path.parent.glob("*/config.json"))) or "none"
        raise UserError(f"checkpoint {spec!r}: package {package!r} has no folder {folder!r}; it has: {have}")
    return path


def _from_hub(hub_id: str, files: Sequence[str] | None) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - costs a second that local folders need not pay

    try:
        return Path(snapshot_download(hub_id, allow_patterns=None if files is None else list(files)))
    except Exception as error:
        raise UserError(
            f"no local folder {hub_id!r}, and the hub gave no such checkpoint ({reason(error)}); "
            "check the name, the network, or download it and give the folder"
        ) from None


def reason(error: Exception) -> str:
    """An error's type and the beginning of what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file is missing or is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no checkpoint: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is broken ({error}); download or save the checkpoint again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}, expected an object")
    return values
