"""Checks of the checkpoints that a run loads: of the backbone, the rewards, the judge, and the diversity metric."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from unirl.backbones.checkpoints import (
    PretrainedModel,
    describe_error,
    has_weights,
    locate_local,
    read_json,
    weight_files,
)
from unirl.backbones.hub import CONFIG_FILES, WEIGHT_NAMES, cached_folder, needed_files
from unirl.doctor.findings import Finding, format_bytes
from unirl.doctor.settings import HUB_PREFIXES, check_diversity_model
from unirl.errors import UserError

HUB_TIMEOUT = 10.0
"""Seconds for the Hugging Face hub to answer."""
DIVERSITY_MODEL = "diversity_model"


def check_models(model: Any) -> Iterator[Finding]:
    """Check that everything that a run loads is there. Nothing is loaded.

    Args:
        model: The LightningModule, not built.
    """
    plugins = [("checkpoint", model.backbone)]
    plugins += [(f"reward {reward.name}", reward) for reward in getattr(model, "rewards", ())]
    judge = getattr(model, "judge", None)
    plugins += [] if judge is None else [("judge", judge)]
    for subject, plugin in plugins:
        for needed in plugin.pretrained_models:
            yield check_pretrained(subject, needed)
    if not check_diversity_model(model):
        yield from _check_diversity_weights(model)


def check_pretrained(subject: str, model: PretrainedModel) -> Finding:
    """Check that a checkpoint is on this machine, or that the hub has it.

    Args:
        subject: What needs it.
        model: The checkpoint.
    """
    try:
        folder = locate_local(model.name)
        if folder is not None:
            problem = _find_problem(model, folder)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if problem is None:
                return Finding("ok", subject, f"{model.name}, {format_bytes(size)} on this machine")
            return Finding("error", subject, problem, "download or save it again")
    except UserError as error:
        return Finding("error", subject, str(error))
    return _check_hub(subject, model)


def _find_problem(model: PretrainedModel, folder: Path) -> str | None:
    """What a folder lacks of a checkpoint."""
    files, has_model = model.files, _has_weights(model)
    if has_model and (files is None or _matches("config.json", files)):
        model_type = read_json(folder / "config.json").get("model_type")
        if model.model_type not in (None, model_type):
            return f"{model.name}: its config.json says {model_type!r}, expected {model.model_type!r}"
    if has_model and not has_weights(folder):
        return f"{model.name} has no weights"
    if files is None:
        return None
    found = weight_files(folder) if has_model else [path for path in folder.iterdir() if _matches(path.name, files)]
    if not any(_matches(path.name, files) for path in found):
        return f"{model.name} has none of the files that are read: {', '.join(files)}"
    return None


def _has_weights(model: PretrainedModel) -> bool:
    """Whether weights are among the files that are read."""
    return model.files is None or any(_matches(name, model.files) for name in WEIGHT_NAMES)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _check_hub(subject: str, model: PretrainedModel) -> Finding:
    from huggingface_hub import HfApi  # noqa: PLC0415 - slow, and not needed for local folders

    cached = cached_folder(model.name, model.revision)
    try:
        if cached is not None and _find_problem(model, cached) is None:
            return Finding("ok", subject, f"{model.name}, in the hub's cache at {cached}")
        info = HfApi().model_info(model.name, revision=model.revision, timeout=HUB_TIMEOUT, files_metadata=True)
        files = info.siblings or []
    except Exception as error:  # the hub's client raises errors of many libraries
        text = f"{model.name!r} is not on this machine, and the hub did not give it ({describe_error(error)})"
        advice = "check the name and the network, or download it and give the folder"
        return Finding("error", subject, text, advice)
    sizes = {file.rfilename: file.size or 0 for file in files}
    needed = needed_files(list(sizes), model.files)
    configs = needed_files(list(sizes), CONFIG_FILES)
    if not needed or (_has_weights(model) and not set(needed) - set(configs)):
        text = f"{model.name} is on the hub, and has none of the weights that are read"
        return Finding(
            "error", subject, text, "name a checkpoint with weights in safetensors, or download and convert it"
        )
    size = sum(sizes[name] for name in needed)
    return Finding("ok", subject, f"{model.name} is on the hub; {format_bytes(size)} will be downloaded")


def _check_diversity_weights(model: Any) -> Iterator[Finding]:
    """Check the pretrained weights of a timm model that timm downloads."""
    config = getattr(model, "evaluation", None)
    name = getattr(config, "diversity_model", None)
    if config is None or not name or not config.num_diversity_prompts or Path(name).is_dir():
        return
    prefix = next((prefix for prefix in HUB_PREFIXES if name.startswith(prefix)), None)
    hub_id = None
    if prefix is not None:
        hub_id = name if prefix.endswith("/") else name.removeprefix(prefix)
    elif ":" not in name:
        import timm  # noqa: PLC0415 - takes a second

        settings: Any = timm.get_pretrained_cfg(name)
        if settings is None or not settings.has_weights:
            text = f"timm has no pretrained weights of {name!r}"
            yield Finding("error", DIVERSITY_MODEL, text, "take a name from timm.list_models(pretrained=True), or null")
            return
        hub_id = settings.hf_hub_id
    if hub_id:
        yield check_pretrained(DIVERSITY_MODEL, PretrainedModel(hub_id))
