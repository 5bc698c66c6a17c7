"""Is the checkpoint where the config says? Nothing of its weights is read."""

import json
from pathlib import Path

from unirl.backbones import Backbone
from unirl.backbones.files import has_weights, local, read_json, reason
from unirl.doctor.findings import Finding, size
from unirl.errors import UserError

PATIENCE = 10.0
"""Seconds for the hub to answer."""


def check_checkpoint(backbone: Backbone) -> list[Finding]:
    """Whether the checkpoint named by a backbone's attribute `checkpoint` is there and has a readable config.

    Args:
        backbone: Not built.
    """
    name = getattr(backbone, "checkpoint", None)
    if not isinstance(name, str):
        return []
    try:
        folder = local(name)
        if folder is not None:
            return [_local(name, folder)]
    except UserError as error:
        return [Finding("error", "checkpoint", str(error))]
    return [_on_hub(name)]


def _local(name: str, folder: Path) -> Finding:
    read_json(folder / "config.json")
    if not has_weights(folder):
        return Finding("error", "checkpoint", f"{name} holds a config and no weights", "download or save it again")
    return Finding("ok", "checkpoint", f"{name}, {size(_bytes(folder))} on this machine")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _on_hub(name: str) -> Finding:
    from huggingface_hub import HfApi, try_to_load_from_cache  # noqa: PLC0415 - local folders need not pay for it

    try:
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            json.loads(Path(cached).read_text(encoding="utf-8"))
            return Finding("ok", "checkpoint", f"{name}, in the hub's cache at {Path(cached).parent}")
        files = HfApi().model_info(name, timeout=PATIENCE, files_metadata=True).siblings or []
    except Exception as error:  # the hub's client raises what it likes
        advice = "check the name and the network, or download it and give the folder"
        text = f"{name!r} is not here, and the hub gave no such checkpoint ({reason(error)})"
        return Finding("error", "checkpoint", text, advice)
    total = size(sum(file.size or 0 for file in files))
    return Finding("ok", "checkpoint", f"{name} is on the hub; up to {total} will be downloaded")
