"""The images of a benchmark on disk, in the layout of GenEval: `00000/metadata.jsonl` and `00000/samples/0000.png`.

Source: Ghosh et al. 2023 (arXiv 2310.11513), the layout that its public code reads.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unirl.callbacks.grids import to_pil
from unirl.errors import UserError
from unirl.image_files import decode_image
from unirl.judges.reference_images import METADATA, SAMPLES, numbered_folders, numbered_images
from unirl.output import write_atomically
from unirl.types import Example


@dataclass(frozen=True)
class ImageFile:
    """An image of a benchmark.

    Args:
        example: What it was generated for.
        index: Its number among the images of the prompt.
        path: Where it is, or will be.
    """

    example: Example
    index: int
    path: Path


def checked_folder(out: str | Path) -> Path:
    """A folder of results, which need not exist yet.

    Args:
        out: Its path.

    Raises:
        UserError: it is a file, or cannot be a path.
    """
    try:
        folder = Path(out).expanduser()
        if folder.is_dir():
            return folder
        folder.stat()
    except FileNotFoundError:
        return folder
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, no such user's home
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--out {str(out)[:60]!r} cannot be a folder ({reason})") from None
    raise UserError(f"{folder} is a file; give a folder as --out, which need not exist yet")


def planned_images(folder: Path, examples: Sequence[Example], count: int) -> list[ImageFile]:
    """The images of a benchmark, prompt by prompt.

    Args:
        folder: Of the benchmark's results.
        examples: The benchmark's.
        count: Images of each prompt.
    """
    return [
        ImageFile(example, index, folder / f"{number:05d}" / SAMPLES / f"{index:04d}.png")
        for number, example in enumerate(examples)
        for index in range(count)
    ]


def metadata_of(example: Example) -> dict[str, Any]:
    """An example as an entry of GenEval's metadata.

    Args:
        example: Of a benchmark.

    Example:
        >>> from unirl.types import Item
        >>> metadata_of(Example("a photo of two cups", category="counting", objects=(Item("cup", 2),)))
        {'tag': 'counting', 'include': [{'class': 'cup', 'count': 2}], 'prompt': 'a photo of two cups'}
    """
    include = [_item(item.name, item.count, item.color, item.relation) for item in example.objects]
    exclude = [_item(item.name, item.count, item.color, None) for item in example.exclude]
    lists = {"include": include} | ({"exclude": exclude} if exclude else {})
    return {"tag": example.category, **lists, "prompt": example.prompt}


def _item(name: str, count: int, color: str | None, relation: tuple[str, int] | None) -> dict[str, Any]:
    item: dict[str, Any] = {"class": name, "count": count}
    item |= {} if color is None else {"color": color}
    return item | ({} if relation is None else {"position": list(relation)})


def write_metadata(images: Sequence[ImageFile]) -> None:
    """Write the metadata of each prompt beside its images.

    Args:
        images: Of the whole benchmark.

    Raises:
        UserError: images of another prompt are there.
    """
    first = [image for image in images if image.index == 0]
    for image in first:
        metadata = image.path.parent.parent / METADATA
        if metadata.exists() and (prompt := _read_prompt(metadata)) != image.example.prompt:
            raise UserError(
                f"{metadata} is of the prompt {_short(prompt)}, and the benchmark has {_short(image.example.prompt)} "
                "there: the folder holds images of other prompts; take another --out"
            )
    for image in first:
        image.path.parent.mkdir(parents=True, exist_ok=True)
        metadata, line = image.path.parent.parent / METADATA, json.dumps(metadata_of(image.example)) + "\n"
        if not metadata.exists() or metadata.read_bytes() != line.encode():
            write_atomically(metadata, line.encode())


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else f"{prompt[:57]}...")


def found_images(folder: Path, examples: Sequence[Example]) -> list[ImageFile]:
    """The images that another program left in a folder, by the prompts in its metadata.

    Args:
        folder: In GenEval's layout.
        examples: The benchmark's.

    Raises:
        UserError: a folder has no metadata, a broken one, or a prompt that is not of the benchmark or that another
            folder has, too; or there is no image at all.
    """
    by_prompt, seen, found = {example.prompt: example for example in examples}, dict[str, Path](), list[ImageFile]()
    for entry in numbered_folders(folder):
        files = numbered_images(entry)
        if not files:
            continue
        prompt = _read_prompt(entry / METADATA)
        if prompt not in by_prompt:
            raise UserError(
                f"{entry / METADATA}: the prompt {_short(prompt)} is not one of the benchmark's {len(examples)}"
            )
        if prompt in seen:
            raise UserError(
                f"{entry / METADATA}: {seen[prompt]} has the prompt {_short(prompt)}, too; keep one of them"
            )
        seen[prompt] = entry
        found += [ImageFile(by_prompt[prompt], index, path) for index, path in enumerate(files)]
    if not found:
        raise UserError(
            f"{folder} has no images to judge; expected GenEval's layout: 00000/{METADATA} and 00000/{SAMPLES}/0000.png"
        )
    return found


def _read_prompt(path: Path) -> str:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; it says which prompt the images beside it are of") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not one JSON object: {error}") from None
    prompt = metadata.get("prompt") if isinstance(metadata, Mapping) else None
    if not isinstance(prompt, str):
        raise UserError(f'{path}: expected a JSON object with "prompt"')
    return prompt


def read_image(path: Path) -> tuple[Tensor, str]:
    """An image and the SHA-256 of its file.

    Args:
        path: A file that `open_image` reads.

    Shapes:
        returns (3, H, W), k / 255.

    Raises:
        UserError: the file is broken.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    pixels = torch.from_numpy(np.array(decode_image(data, path)))
    return pixels.permute(2, 0, 1).float() / 255, sha256(data).hexdigest()


def write_image(path: Path, pixels: Tensor) -> None:
    """Write a PNG, whole or not at all.

    Args:
        path: The file.
        pixels: Rounded to 8 bits.

    Shapes:
        pixels (3, H, W) in [0, 1].
    """
    buffer = BytesIO()
    to_pil(pixels).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
