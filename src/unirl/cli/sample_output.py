"""What `unirl sample` writes: a grid of all images or a file of each, the answers, and a JSON document."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from unirl.training import Samples
    from unirl.types import Example


@dataclass(frozen=True)
class Requested:
    """An image to generate.

    Args:
        example: Its prompt, with question and expected answer if there are some.
        prompt_index: Number of the prompt in this command, from 0.
        image_index: Number of the image among those of this prompt in this command, from 0.
    """

    example: "Example"
    prompt_index: int
    image_index: int

    @property
    def file_name(self) -> str:
        """Name of the image in a folder of single images."""
        return f"{self.prompt_index:05}_{self.image_index:04}.png"


class Output:
    """Writes images as they come, and at the end what needs all of them.

    Args:
        out: A file that ends in .png for a grid, or a folder for single images.
        document: The JSON file to write; "-" for stdout, in place of the plain answers; None for neither.

    Raises:
        UserError: a name is none of these, or there is no folder for it.
    """

    def __init__(self, out: str, document: str | None) -> None:
        self.out, self.document = Path(out), document
        self.is_folder = out.endswith(("/", os.sep)) or self.out.is_dir()
        if not self.is_folder and self.out.suffix.lower() != ".png":
            raise UserError(
                f"--out {out!r}: expected a file name that ends in .png, for one grid of all images, or a folder with "
                "a / at its end, for single images"
            )
        _check_parent("--out", out)
        if document not in (None, "-"):
            _check_parent("--json", document)
            if Path(document).is_dir():
                raise UserError(f"--json {document!r}: it is a folder; give the name of a file, or - for stdout")
        if self.is_folder:
            try:
                self.out.mkdir(exist_ok=True)
            except OSError as error:
                raise UserError(f"--out {out!r}: {error.strerror or error}; give another folder") from error
        self._images: list[dict[str, Any]] = []
        self._pixels: list[Tensor] = []

    def add(self, requested: Sequence[Requested], samples: "Samples") -> None:
        """Write images and answers.

        Args:
            requested: What each of the images is.
            samples: The images, with answers and scores if there are some.
        """
        from unirl.callbacks.grids import to_pil  # noqa: PLC0415 - `--help` needs no torch

        assert samples.images.pixels is not None
        pixels = samples.images.pixels.float().cpu()
        if self.is_folder:
            for image, values in zip(requested, pixels, strict=True):
                _save(to_pil(values), self.out / image.file_name)
        else:
            self._pixels.append(pixels)
        rows = [self._row(image, samples, i) for i, image in enumerate(requested)]
        self._images += rows
        for row in rows if self.document != "-" and samples.answers is not None else []:
            print(" ".join(row["answer"].split()))

    def _row(self, image: Requested, samples: "Samples", i: int) -> dict[str, Any]:
        """What the JSON document says about an image."""
        example = image.example
        return {
            "prompt": example.prompt,
            "prompt_index": image.prompt_index,
            "image_index": image.image_index,
            "file": image.file_name if self.is_folder else None,
            "question": example.question or None,
            "expected": example.answer or None,
            "answer": None if samples.answers is None else samples.answers.text[i],
            "score": None if samples.scores is None else samples.scores[i].item(),
            "all_scores": None if samples.all_scores is None else samples.all_scores[:, i].tolist(),
        }

    def finish(self, settings: dict[str, Any]) -> None:
        """Write the grid and the JSON document.

        Args:
            settings: Everything that the images depend on, for the document.
        """
        import torch  # noqa: PLC0415 - `--help` needs no torch

        from unirl.callbacks.grids import Caption, image_grid  # noqa: PLC0415

        if not self.is_folder:
            captions = [
                Caption(texts["prompt"], texts["answer"], question=texts["question"], expected=texts["expected"])
                for texts in ({name: value or "" for name, value in row.items()} for row in self._images)
            ]
            _save(image_grid(torch.cat(self._pixels), captions), self.out)
        if self.document is None:
            return
        text = json.dumps({**settings, "images": self._images}, indent=1, ensure_ascii=False)
        if self.document == "-":
            print(text)
            return
        try:
            Path(self.document).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {self.document!r}: {error.strerror or error}") from error


def _check_parent(option: str, name: str) -> None:
    parent = Path(name).parent
    if not parent.is_dir():
        raise UserError(f"{option} {name!r}: there is no folder {str(parent)!r}; create it first")


def _save(image: Any, path: Path) -> None:
    try:
        image.save(path)
    except OSError as error:
        raise UserError(f"--out: {path} cannot be written ({error.strerror or error})") from error
