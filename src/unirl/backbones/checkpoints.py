"""Finding and reading checkpoint files, with errors a user can act on. Shared by all backbones."""

import importlib
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging

from unirl.errors import UserError

WEIGHT_NAMES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pt",
)
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError)
"""What reading a broken file of weights raises."""


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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder: safetensors or weights-only pickles, in one file or in shards.

    Raises:
        UserError: no weights, or a file that is truncated.
    """
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            part = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{folder}: the shard {file.name} is missing; download it again") from None
        except UNREADABLE as error:
            said = reason(error)
            raise UserError(f"{file} cannot be read ({said}); it is truncated or broken, download it again") from None
        weights.update(part)
    return weights


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint folder names weights that are all there; none is read.

    Raises:
        UserError: an index of shards is broken.
    """
    if not any((folder / f"{name}{end}").is_file() for name in WEIGHT_NAMES for end in ("", ".index.json")):
        return False
    return all(file.is_file() for file in weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint folder's weights.

    Raises:
        UserError: there are none, or an index of shards is broken.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise UserError(f"{index} has no weight_map that names the shards; download it again")
            return sorted({folder / shard for shard in shards.values()})
    raise UserError(f"{folder} holds no weights; expected one of: {', '.join(WEIGHT_NAMES)}, or their shards")


def load_exactly(module: torch.nn.Module, weights: dict[str, Tensor], where: Path, ignore: Iterable[str] = ()) -> None:
    """Load weights; every parameter must be there, with its shape, and nothing may be left over.

    Args:
        module: Receives the weights; may be on the meta device.
        weights: Tensors by name.
        where: For the error message.
        ignore: Beginnings of names that may be left over.

    Raises:
        UserError: naming the first tensor that does not fit.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in weights]
    extra = [name for name in weights if name not in wanted and not name.startswith(tuple(ignore))]
    wrong = [n for n, w in wanted.items() if n in weights and weights[n].shape != w.shape]
    if wrong:
        got, expected = tuple(weights[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
        raise UserError(f"{where}: {wrong[0]} has shape {got}, but config.json makes it {expected}; they do not belong")
    if missing or extra:
        kind, names = ("lacks", missing) if missing else ("has unknown", extra)
        raise UserError(f"{where}: the checkpoint {kind} {names[0]} ({len(names)} such tensors); wrong checkpoint?")
    module.load_state_dict({name: weights[name] for name in wanted}, assign=True)


def load_transformers(kind: Any, folder: Path) -> Any:
    """A transformers model in float32; every tensor must be there, and nothing may be left over.

    Args:
        kind: Its class.
        folder: Of a checkpoint in transformers' format.

    Raises:
        UserError: it cannot be read, or its tensors are not the model's.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}
    try:  # other sizes are in the report then, with their names
        model, report = quietly(kind.from_pretrained, folder, **options, ignore_mismatched_sizes=True)
    except Exception as error:
        name = kind.__name__.removesuffix("ForConditionalGeneration")
        raise UserError(f"{folder}: no {name} can be loaded ({reason(error)}); download or save it again") from None
    for name, got, expected in sorted(report["mismatched_keys"]):
        sizes = f"{name} has shape {tuple(got)}, but config.json makes it {tuple(expected)}"
        raise UserError(f"{folder}: {sizes}; they do not belong together")
    for what in ("missing_keys", "unexpected_keys"):
        if names := sorted(map(str, report[what])):
            kinds = f"{len(names)} {what.partition('_')[0]} tensors"
            raise UserError(f"{folder}: {kinds}, such as {names[0]}; wrong or incomplete checkpoint")
    return model


def tensor_names(folder: Path) -> set[str]:
    """The names of a checkpoint folder's tensors, none of which is read; of none where it holds no weights.

    Raises:
        UserError: an index of shards or a file is broken.
    """
    names: set[str] = set()
    for file in weight_files(folder) if has_weights(folder) else ():
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt") as tensors:
                    names.update(tensors.keys())
            else:
                names.update(torch.load(file, "meta", weights_only=True))
        except UNREADABLE as error:
            raise UserError(f"{file} cannot be read ({reason(error)}); download it again") from None
    return names


def check_positions(config: Any, folder: Path) -> None:
    """Refuse rotary embeddings that the longest row of a batch decides: samples would depend on who shares it.

    Args:
        config: Of the language model.
        folder: For the error message.

    Raises:
        UserError: naming their type.
    """
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if kind in ("dynamic", "longrope"):
        raise UserError(
            f"{folder}: rope_type {kind!r} makes a sample depend on the longest of its batch, so that no drawing could "
            "be scored as it was drawn; models of other types are supported, such as 'default', 'linear' and 'yarn'"
        )


def normalization(pictures: Any, checkpoint: str | Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by which a checkpoint normalizes pictures in [0, 1].

    Args:
        pictures: Its image processor, which is given 0 to 255.
        checkpoint: For the error message.

    Shapes:
        returns two of (3, 1, 1).

    Raises:
        UserError: it does not normalize, or not by one number for each of red, green and blue.
    """
    if pictures.image_mean is None or pictures.image_std is None or not pictures.do_normalize:
        raise UserError(
            f"{checkpoint}: the processor does not normalize pictures; image_mean and image_std must be there"
        )
    factor = pictures.rescale_factor if pictures.do_rescale else 1.0
    found = []
    for name, values in (("image_mean", pictures.image_mean), ("image_std", pictures.image_std)):
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise UserError(f"{checkpoint}: the processor's {name} is {values!r}; expected three numbers")
        found.append(torch.tensor(values, dtype=torch.float32).view(3, 1, 1) / (255 * factor))
    return found[0], found[1]


def quietly(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call it without transformers' bars and reports: what they say is checked afterwards."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        return call(*args, **options)
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
