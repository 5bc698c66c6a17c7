"""Which files of a hub repository are downloaded: those of a checkpoint that are read, and no others."""

import glob
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

WEIGHT_NAMES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pt",
)
"""Names of weight files, the preferred ones first: many repositories hold the same weights in several formats."""
CONFIG_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Patterns of what a checkpoint holds besides weights: configs, tokenizer, processor."""


def needed_files(names: Sequence[str], files: Sequence[str] | None = None, parts: Sequence[str] = ()) -> list[str]:
    """The files of a repository that are read: configs, and the weights in one format.

    Args:
        names: All files of the repository, with their folders.
        files: Patterns that restrict them; None for all that are read.
        parts: Folders inside the checkpoint that are checkpoints themselves. Other folders are not read.

    Example:
        >>> needed_files(["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "README.md"])
        ['config.json', 'model.safetensors']
    """
    return [
        prefix + name
        for prefix in ("", *(f"{part}/" for part in parts))
        for name in _needed([n.removeprefix(prefix) for n in names if n.startswith(prefix)])
        if files is None or _matches(name, files)
    ]


def _needed(names: Sequence[str]) -> Iterator[str]:
    own = sorted(name for name in names if "/" not in name)
    yield from (name for name in own if _matches(name, CONFIG_FILES))
    for name in WEIGHT_NAMES:
        if name in own:
            yield name
            return
        if f"{name}.index.json" in own:
            stem, _, suffix = name.rpartition(".")
            yield from (shard for shard in own if fnmatch(shard, f"{stem}-*-of-*.{suffix}"))
            return


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def download(
    hub_id: str, files: Sequence[str] | None = None, parts: Sequence[str] = (), revision: str | None = None
) -> Path:
    """The folder of a repository in the hub's cache, with the files that are read.

    Args:
        hub_id: The repository, "owner/name".
        files: As for `needed_files`.
        parts: As for `needed_files`.
        revision: Branch, tag or commit. None takes the main branch.

    Raises:
        Exception: the hub did not give them, and they are not in the cache; of many types.
    """
    from huggingface_hub import list_repo_files, snapshot_download  # noqa: PLC0415 - takes a second to import

    try:
        names = needed_files(list_repo_files(hub_id, revision=revision), files, parts)
    except Exception:
        if (folder := cached_folder(hub_id, revision)) is not None:
            return folder
        raise
    return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[glob.escape(name) for name in names]))


def cached_folder(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder of a repository in the hub's cache, which need not be complete; None where it has none.

    Args:
        hub_id: The repository, "owner/name".
        revision: As for `download`.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - takes a second to import

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except Exception:  # the hub's client raises errors of many types
        return None
