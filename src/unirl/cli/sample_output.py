"""What `unirl sample` writes: a grid of all images or a file of each, the answers, and a JSON document."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unirl.errors import UserError
from unirl.output import write_atomically

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
        place: Number of the image among those at this place in the list of prompts, from 0.
        image_index: k of this image of the prompt, by which it is seeded. Where a prompt comes again, it goes on.
    """

    example: "Example"
    prompt_index: int
    place: int
    image_index: int

    @property
    def file_name(self) -> str:
        """Name of the image in a folder of single images."""
        return f"{self.prompt_index:05}_{self.place:04}.png"


class Output:
    """Writes images as they come, and at the end what needs all of them.

    Args:
        out: A file that ends in .png for a grid, or a folder for single images.
        document: The JSON file to write; "-" for stdout, in place of the plain answers; None for neither.
        prompts: The file of prompts, which is not written over.

    Raises:
        UserError: a name is none of these, or there is no folder for it.
    """

    def __init__(self, out: str, document: str | None, prompts: str | None = None) -> None:
        self.out, self.document = Path(out).expanduser(), document
        self.is_folder = out.endswith(("/", os.sep)) or (bool(out) and self.out.is_dir())
        if not self.is_folder and self.out.suffix.lower() != ".png":
            raise UserError(
                f"--out {out!r}: expected a file name that ends in .png, for one grid of all images, or a folder with "
                "a / at its end, for single images"
            )
        _check_writable(f"--out {out!r}", self.out)
        if document not in (None, "-"):
            _check_document(document, prompts)
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
            _print(" ".join(row["answer"].split()))

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

    def finish(self, settings: dict[str, Any]) -> list[str]:
        """Write the grid and the JSON document.

        Args:
            settings: Everything that the images depend on, for the document.

        Returns:
            What the user must know about the folder.
        """
        import torch  # noqa: PLC0415 - `--help` needs no torch

        from unirl.callbacks.grids import Caption, image_grid  # noqa: PLC0415

        if not self.is_folder:
            captions = [
                Caption(texts["prompt"], texts["answer"], question=texts["question"], expected=texts["expected"])
                for texts in ({name: value or "" for name, value in row.items()} for row in self._images)
            ]
            _save(image_grid(torch.cat(self._pixels), captions), self.out)
        if self.document is not None:
            self._write_document(self.document, settings)
        return self._others()

    def _write_document(self, name: str, settings: dict[str, Any]) -> None:
        text = json.dumps({**settings, "images": self._images}, indent=1, ensure_ascii=False)
        if name == "-":
            _print(text)
            return
        try:
            Path(name).expanduser().write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {name!r}: {error.strerror or error}; give another file") from error

    def _others(self) -> list[str]:
        """A sentence about other images in the folder, such as those of a longer run."""
        written = {row["file"] for row in self._images}
        others = sorted({path.name for path in self.out.glob("*.png")} - written) if self.is_folder else []
        if not others:
            return []
        are, they = ("images are", "they stay") if len(others) > 1 else ("image is", "it stays")
        return [f"warning: {len(others)} other {are} in {self.out}, such as {others[0]}; {they} as before"]


def _check_document(name: str, prompts: str | None) -> None:
    path = Path(name).expanduser()
    _check_writable(f"--json {name!r}", path)
    if path.is_dir():
        raise UserError(f"--json {name!r}: it is a folder; give the name of a file, or - for stdout")
    if path.suffix.lower() == ".png" or (
        prompts is not None and path.resolve() == Path(prompts).expanduser().resolve()
    ):
        other = "an image" if path.suffix.lower() == ".png" else "the file of prompts"
        raise UserError(f"--json {name!r}: it is the name of {other}; give another file, or - for stdout")


def _check_writable(option: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{option}: there is no folder {str(path.parent)!r}; create it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"{option}: it cannot be written; give another place")


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        raise UserError(f"the answers cannot be written to stdout: {error.strerror or error}") from None


def _save(image: Any, path: Path) -> None:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"--out: {path} cannot be written ({error.strerror or error}); give another place") from error
