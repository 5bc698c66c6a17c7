"""Classification of colors, against clip_benchmark's functions on open_clip's preprocessing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from unirl import UserError
from unirl.judges import COLORS
from unirl_geneval.colors import ColorClassifier, clip_input, crop
from unirl_geneval.detector import DetectedObject


@torch.no_grad()
def test_crops_texts_and_logits_are_genevals(
    reference: Path, load_image: Callable[[Path], Tensor], unpack: Callable[[Tensor, int, int], Tensor]
) -> None:
    """Of detected masks, and of one pixel, lines, whole images, and masks of two parts."""
    golden = json.loads((reference / "colors/golden.json").read_text())
    tensors = load_file(reference / "colors/golden.safetensors")
    classifier = ColorClassifier(str(reference / "colors"))
    assert [*COLORS] == golden["colors"]
    for i, entry in enumerate(golden["pictures"]):
        image, name = load_image(reference / entry["file"]), entry["classname"]
        masks = unpack(tensors[f"masks_{i}"], *image.shape[1:])
        boxes = tensors[f"boxes_{i}"].tolist()
        objects = [
            DetectedObject(name, tuple(box[:4]), box[4], mask=mask) for box, mask in zip(boxes, masks, strict=True)
        ]
        crops = classifier.crops(image, objects)
        # Versions of Pillow resize some sizes differently by one level; the golden crops are those of Pillow 13.
        assert ((crops - tensors[f"pixel_values_{i}"]).abs() > 0.02).sum() == 0
        torch.testing.assert_close(classifier.classifier(name), tensors[f"classifier_{i}"], rtol=0, atol=1e-5)
        logits = classifier.logits(name, tensors[f"pixel_values_{i}"])
        torch.testing.assert_close(logits, tensors[f"logits_{i}"], rtol=0, atol=1e-3)
        assert classifier.colors(image, objects) == entry["colors"]
    for text, ids in golden["token_ids"].items():
        assert classifier.tokenizer(text)["input_ids"] == ids


def test_an_object_stands_on_gray_and_is_cut_at_its_box() -> None:
    pixels = np.zeros((6, 8, 3), dtype=np.uint8)
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[1:4, 2:7] = True
    mask[2, 3] = False
    cut = np.array(crop(pixels, DetectedObject("cup", (2, 1, 7, 4), 0.5, mask=mask)))
    assert cut.shape == (3, 5, 3)
    assert (cut == 153).all(-1).nonzero()[0].tolist() == [1]
    assert (cut == 153).all(-1).nonzero()[1].tolist() == [1]


@pytest.mark.parametrize(("size", "left", "top"), [((32, 35), 0, 2), ((39, 32), 4, 0), ((32, 37), 0, 2)])
def test_the_center_is_cut_as_torchvision_does(size: tuple[int, int], left: int, top: int) -> None:
    """Half to even: (35 - 32) / 2 is 2, and (37 - 32) / 2 is 2, too. transformers' processors round down."""
    width, height = size
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.stack((columns, rows, rows), -1).astype(np.uint8))
    found = clip_input(image, 32) * torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    found = (found + torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)) * 255
    assert found[:2, 0, 0].round().tolist() == [left, top]


def test_one_pixel_has_a_color(clip_folder: Path) -> None:
    classifier = ColorClassifier(str(clip_folder))
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[2, 2] = True
    with torch.no_grad():
        (color,) = classifier.colors(
            torch.zeros(3, 5, 5, dtype=torch.uint8), [DetectedObject("cup", (2, 2, 3, 3), 0.5, mask=mask)]
        )
    assert color in COLORS


def test_what_is_no_clip_is_refused(detector_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"geneval: the CLIP: .* of type 'mask2former', expected 'clip'"):
        ColorClassifier(str(detector_folder))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"geneval: the CLIP: the tokenizer in .* cannot be read"):
        ColorClassifier(str(tmp_path))
