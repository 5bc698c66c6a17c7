"""Is there a model for the features that validation compares drawings in? It is loaded at the first validation only."""

from pathlib import Path
from typing import Any

from unirl.backbones.files import locate
from unirl.doctor.findings import Finding
from unirl.errors import UserError

HUBS = ("hf-hub:", "hf_hub:", "timm/")
ADVICE = 'take a name from timm.list_models(pretrained=True), a folder that timm saved, or "model.features: null"'


def check_features(model: Any) -> list[Finding]:
    """Whether timm knows the model's `features`, or they are a folder that it can have saved. Nothing is loaded.

    Args:
        model: The LightningModule.
    """
    name = getattr(model, "features", None)
    if name is None or not getattr(model, "diversity_prompts", 0) or name.startswith(HUBS):
        return []
    if not name or not (Path(name).is_dir() or ":" in name):
        return [] if _known(name) else [Finding("error", "features", f"timm has no model {name!r}", ADVICE)]
    try:
        folder = locate(name)
    except UserError as error:
        return [Finding("error", "features", str(error), ADVICE)]
    if (folder / "config.json").is_file():
        return []
    return [Finding("error", "features", f"{folder} has no config.json, so timm did not save it", ADVICE)]


def _known(name: str) -> bool:
    import timm  # noqa: PLC0415 - takes a second that others need not pay

    return timm.is_model(name)
