"""Locating and reading checkpoint files, with errors that a user can act on."""

import importlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unirl.backbones.hub import WEIGHT_NAMES, download
from unirl.errors import UserError

UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
"""Exceptions that reading a broken weight file raises."""


@dataclass(frozen=True)
class PretrainedModel:
    """A checkpoint that a plugin loads when a run starts. `unirl doctor` checks before that whether it is there.

    Args:
        name: A local folder, `package:folder`, or a hub id.
        files: Patterns of the files that are read, as for `locate`. None for a whole model.
        model_type: What its config.json must say, or None.
        revision: Branch, tag or commit of the hub's repository. None takes its main branch.

    Example:
        >>> PretrainedModel("openai/clip-vit-base-patch32", model_type="clip").files is None
        True
    """

    name: str
    files: tuple[str, ...] | None = None
    model_type: str | None = None
    revision: str | None = None


def locate(
    path_or_id: str,
    inside: Path | None = None,
    files: Sequence[str] | None = None,
    parts: Sequence[str] = (),
    revision: str | None = None,
) -> Path:
    """The folder of a checkpoint, downloaded where it is a hub id.

    Args:
        path_or_id: A local folder; `package:folder` for files that a Python package ships; or a hub id.
        inside: The folder that a relative path is looked up in first.
        files: Files to download from the hub, as patterns such as "*.json". By default those of a model: configs, and
            weights as safetensors, or as pickles where there are no safetensors.
        parts: Folders inside the checkpoint that are checkpoints themselves; other folders are not downloaded.
        revision: Branch, tag or commit of the hub's repository. None takes its main branch.

    Raises:
        UserError: there is no such checkpoint, or the hub cannot be reached.
    """
    return locate_local(path_or_id, inside) or _download(path_or_id, files, parts, revision)


def locate_local(path_or_id: str, inside: Path | None = None) -> Path | None:
    """The folder of a checkpoint on this machine; None for a hub id. Arguments as for `locate`.

    Raises:
        UserError: it is not a hub id, and there is no such folder.
    """
    try:
        for candidate in ([inside / path_or_id] if inside else []) + [Path(path_or_id).expanduser()]:
            _check_of_run(path_or_id, candidate)
            if candidate.is_dir():
                return candidate
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no such user's home
        raise UserError(f"checkpoint {path_or_id[:60]!r} cannot be a folder ({describe_error(error)})") from None
    package, colon, folder = path_or_id.partition(":")
    if colon and package.isidentifier():
        return _locate_packaged(path_or_id, package, folder)
    if path_or_id.count("/") != 1 or path_or_id.startswith((".", "/", "~")):
        tried = f" (also looked inside {inside})" if inside else ""
        raise UserError(
            f"no checkpoint at {path_or_id!r}{tried}: give a local folder, package:folder, or a hub id owner/name"
        )
    return None


def _check_of_run(name: str, path: Path) -> None:
    """Refuse what a run leaves besides the model that it exports."""
    if path.suffix == ".ckpt" and path.exists():
        raise UserError(
            f"{name!r} is a checkpoint of a run, not a model in its public format; write its model with unirl export "
            f"--ckpt {name} --out FOLDER and give that folder, or resume the run with --ckpt_path {name}"
        )
    if not (path / "config.json").is_file() and (path / "pretrained" / "config.json").is_file():
        raise UserError(f"{name!r} is the folder of a run; give the model in it: {path / 'pretrained'}")


def _locate_packaged(spec: str, package: str, folder: str) -> Path:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"checkpoint {spec!r}: package {package!r} cannot be imported ({error}); install it") from None
    inside = list(getattr(module, "__path__", ()))
    if not inside:
        raise UserError(f"checkpoint {spec!r}: {package!r} is a single module without folders")
    path = Path(inside[0]) / folder
    if not path.is_dir():
        available = ", ".join(sorted(p.parent.name for p in path.parent.glob("*/config.json"))) or "none"
        raise UserError(f"checkpoint {spec!r}: package {package!r} has no folder {folder!r}; it has: {available}")
    return path


def _download(hub_id: str, files: Sequence[str] | None, parts: Sequence[str], revision: str | None) -> Path:
    try:
        return download(hub_id, files, parts, revision)
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"no local folder {hub_id!r}, and the hub did not give it{at} ({describe_error(error)}); "
            "check the name, the network, or download it and give the folder"
        ) from None


def describe_error(error: Exception) -> str:
    """The type of an error and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file is missing or is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a checkpoint: {path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is broken ({error}); download or save the checkpoint again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__}, expected an object")
    return values


def read_weights(folder: Path, mmap: bool = False) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder: safetensors or pickles of weights only, in one file or in shards.

    Args:
        folder: The checkpoint.
        mmap: Map pickles into memory instead of reading them, for a caller that copies the tensors.

    Raises:
        UserError: there are no weights, or a file is truncated.
    """
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            if file.suffix == ".safetensors":
                part = load_file(file)
            else:  # pickles of before PyTorch 1.6 are no zip archives, and cannot be mapped
                part = torch.load(file, "cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(file))
        except FileNotFoundError:
            raise UserError(f"{folder}: the shard {file.name} is missing; download it again") from None
        except UNREADABLE as error:
            message = f"{file} cannot be read ({describe_error(error)}); it is truncated or broken, download it again"
            raise UserError(message) from None
        weights.update(part)
    return weights


def has_weights(folder: Path) -> bool:
    """Whether all weight files of a checkpoint folder are there; none is read.

    Raises:
        UserError: the index of the shards is broken.
    """
    if not any((folder / f"{name}{end}").is_file() for name in WEIGHT_NAMES for end in ("", ".index.json")):
        return False
    return all(file.is_file() for file in weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint folder.

    Raises:
        UserError: there are none, or the index of the shards is broken.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise UserError(f"{index} has no weight_map; download it again")
            return sorted({folder / shard for shard in shards.values()})
    raise UserError(f"{folder} holds no weights; expected one of: {', '.join(WEIGHT_NAMES)}, or their shards")


def load_exactly(module: torch.nn.Module, weights: dict[str, Tensor], where: Path, ignore: Iterable[str] = ()) -> None:
    """Load weights in float32, whatever type they were saved in; names and shapes must match exactly.

    Args:
        module: Receives the weights; may be on the meta device.
        weights: Tensors by name.
        where: Where they come from, for the error message.
        ignore: Prefixes of names that may be unexpected.

    Raises:
        UserError: names the first tensor that does not match.
    """
    state = module.state_dict()
    missing = [name for name in state if name not in weights]
    unexpected = [name for name in weights if name not in state and not name.startswith(tuple(ignore))]
    mismatched = [n for n, w in state.items() if n in weights and weights[n].shape != w.shape]
    if mismatched:
        name = mismatched[0]
        shapes = f"{name} has shape {tuple(weights[name].shape)}, but config.json makes it {tuple(state[name].shape)}"
        raise UserError(f"{where}: {shapes}; they do not belong together")
    if missing or unexpected:
        kind, names = ("lacks", missing) if missing else ("has unknown", unexpected)
        raise UserError(f"{where}: the checkpoint {kind} {names[0]} ({len(names)} such tensors); wrong checkpoint?")
    values = {name: weights[name] for name in state}
    floats = {name: value.float() for name, value in values.items() if value.is_floating_point()}
    module.load_state_dict(values | floats, assign=True)


@contextmanager
def building_on_cpu() -> Iterator[None]:
    """Within a `with` block, tensors are made on the CPU in float32, whatever device and dtype are the default outside.

    Lightning builds models inside `with torch.device("cuda")`, where transformers' `from_pretrained` wants the package
    accelerate. Use it around what loads a model; it is moved to its device later. It also decorates functions.

    Example:
        >>> with torch.device("meta"), building_on_cpu():
        ...     weight = torch.zeros(2)
        >>> weight.device.type
        'cpu'
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@building_on_cpu()
def load_transformers(
    model_class: Any, folder: Path, config: Any = None, weights: dict[str, Tensor] | None = None
) -> Any:
    """A transformers model on the CPU in float32; names and shapes of its tensors must match exactly.

    Args:
        model_class: Its class, derived from `PreTrainedModel`.
        folder: A checkpoint in transformers' format, or in another one with `config` and `weights`.
        config: The model's config, where the folder has none of transformers'.
        weights: The tensors under transformers' names, likewise.

    Raises:
        UserError: it cannot be read, or its tensors do not match.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}
    if weights is not None:
        options |= {"config": config, "state_dict": weights}
    source = folder if weights is None else None
    try:  # mismatched sizes are then in the report, with their names
        model, report = quietly(model_class.from_pretrained, source, **options, ignore_mismatched_sizes=True)
    except Exception as error:
        name, cause = model_class.__name__.removesuffix("ForConditionalGeneration"), describe_error(error)
        raise UserError(f"{folder}: no {name} can be loaded ({cause}); download or save it again") from None
    for name, got, expected in sorted(report["mismatched_keys"]):
        shapes = f"{name} has shape {tuple(got)}, but config.json makes it {tuple(expected)}"
        raise UserError(f"{folder}: {shapes}; they do not belong together")
    for kind in ("missing", "unexpected"):
        if names := sorted(map(str, report[f"{kind}_keys"])):
            count = f"{len(names)} {kind} tensors"
            raise UserError(f"{folder}: {count}, such as {names[0]}; wrong or incomplete checkpoint")
    return model


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a checkpoint folder by name, without reading them; none where there are no weights.

    Raises:
        UserError: the index of the shards or a file is broken.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder) if has_weights(folder) else ():
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as tensors:
                    shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
            else:
                tensors = torch.load(file, "meta", weights_only=True)
                shapes |= {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read ({describe_error(error)}); download it again") from None
    return shapes


def check_rope_type(config: Any, folder: Path) -> None:
    """Refuse rotary embeddings that depend on the longest row of a batch, since samples would depend on it, too.

    Args:
        config: The language model's config.
        folder: The checkpoint, for the error message.

    Raises:
        UserError: names the type.
    """
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if kind in ("dynamic", "longrope"):
        raise UserError(
            f"{folder}: rope_type {kind!r} makes a sample depend on the longest of its batch, so no image could be "
            "scored as it was sampled; other types are supported, such as 'default', 'linear' and 'yarn'"
        )


def pixel_statistics(
    image_processor: Any, checkpoint: str | Path, allow_unnormalized: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation with which an image processor normalizes pixels, for pixels in [0, 1].

    Args:
        image_processor: Of transformers; it takes pixels from 0 to 255.
        checkpoint: Where it comes from, for the error message.
        allow_unnormalized: Accept a processor whose `do_normalize` is false, for a model whose generated images are
            normalized all the same.

    Shapes:
        returns two of (3, 1, 1).

    Raises:
        UserError: it does not normalize, or not with one number for each of red, green and blue.
    """
    normalizes = image_processor.do_normalize or allow_unnormalized
    if image_processor.image_mean is None or image_processor.image_std is None or not normalizes:
        raise UserError(
            f"{checkpoint}: the processor does not normalize images; image_mean and image_std must be there"
        )
    factor = image_processor.rescale_factor if image_processor.do_rescale else 1.0
    statistics = []
    for name, values in (("image_mean", image_processor.image_mean), ("image_std", image_processor.image_std)):
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise UserError(f"{checkpoint}: the processor's {name} is {values!r}; expected three numbers")
        statistics.append(torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1) / (255 * factor))
    return statistics[0], statistics[1]


def quietly(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call a function of transformers without its progress bars and warnings."""
    from transformers.utils import logging  # noqa: PLC0415 - takes a second to import

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return call(*args, **options)
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
