"""The detector's input, its outputs, and the instances made of them, as OpenCV, mmdet and transformers have them."""

import json
import math
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unirl import UserError
from unirl_geneval.detections import instances
from unirl_geneval.detector import Detector
from unirl_geneval.resize import InputSize, detector_input, input_size, pad, resize
from unirl_geneval.vocabulary import CLASSES

LoadImage, Unpack = Callable[[Path], Tensor], Callable[[Tensor, int, int], Tensor]


def test_sizes_of_the_input(reference: Path) -> None:
    rows = json.loads((reference / "detector/sizes.json").read_text())["rows"]
    wrong = [row for row in rows if input_size(row[1], row[0]) != ((row[3], row[2]), (row[5], row[4]))]
    assert len(rows) == 60
    assert not wrong


def test_pixels_of_the_input_are_opencvs(reference: Path, load_image: LoadImage) -> None:
    """Every pixel, at a small scale and at the real one, of images that shrink and that grow."""
    golden = json.loads((reference / "detector/golden.json").read_text())
    tensors = load_file(reference / "detector/golden.safetensors")
    for i, entry in enumerate(golden["pictures"]):
        image = load_image(reference / entry["file"])
        size = input_size(*image.shape[1:], golden["test_scale"])
        assert torch.equal(resize(image, *size.resized).permute(1, 2, 0), tensors[f"resized_{i}"])
        assert [*reversed(size.padded)] == entry["padded"]
        size = input_size(*image.shape[1:])
        levels = pad(resize(image[None], *size.resized), size)[0].permute(1, 2, 0).contiguous()
        assert sha256(levels.numpy().tobytes()).hexdigest() == entry["full"]["sha256"]
    image = load_image(reference / golden["pictures"][3]["file"])
    inputs = detector_input(image[None], input_size(*image.shape[1:], golden["test_scale"]))
    torch.testing.assert_close(inputs[0], tensors["pixel_values_3"], rtol=0, atol=1e-6)


def test_resizing_is_bilinear_without_antialiasing() -> None:
    image = torch.randint(0, 256, (3, 7, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for size in ((7, 11), (20, 30), (3, 4), (1, 1), (800, 1257)):
        exact = torch.nn.functional.interpolate(image[None].double(), size, mode="bilinear", align_corners=False)[0]
        assert (resize(image, *size).double() - exact).abs().max() <= 1  # integers round on the way
    assert torch.equal(resize(image, 7, 11), image)


def test_images_of_any_shape_have_an_input() -> None:
    for height, width in ((1, 1), (1, 5000), (3000, 2)):
        size = input_size(height, width)
        assert min(size.resized) >= 1
        assert detector_input(torch.zeros(1, 3, height, width, dtype=torch.uint8), size).shape[2:] == size.padded


def test_padding_is_gray_before_normalization() -> None:
    size = input_size(10, 20, (40, 20))
    assert size == InputSize((20, 40), (32, 64))
    inputs = detector_input(torch.zeros(1, 3, 10, 20, dtype=torch.uint8), size)
    gray = (128 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(inputs[0, :, 31, 63], gray)
    torch.testing.assert_close(inputs[0, :, 0, 63], gray)
    assert (inputs[0, :, :20, :40] < 0).all()


def check_instances(
    tensors: dict[str, Tensor], i: int, size: InputSize, height: int, width: int, unpack: Unpack
) -> None:
    found = instances(tensors[f"class_logits_{i}"], tensors[f"mask_logits_{i}"], size, height, width)
    scores, labels = found.scores.tolist(), found.labels.tolist()
    order = sorted(range(len(labels)), key=lambda k: (-scores[k], labels[k]))
    boxes = tensors[f"boxes_{i}"]
    assert found.labels[order].tolist() == tensors[f"labels_{i}"].tolist()
    torch.testing.assert_close(found.scores[order], boxes[:, 4], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.boxes[order], boxes[:, :4])
    expected = unpack(tensors[f"masks_{i}"], height, width)[tensors[f"mask_index_{i}"]]
    differing = (found.masks[found.mask_index[order]] != expected).flatten(1).sum(1)
    assert differing.max() <= 2


def test_instances_of_stored_outputs_are_mmdets(reference: Path, unpack: Unpack) -> None:
    """Also of an empty mask, a tiny one, a full one, one in the padding only, and queries with equal scores."""
    golden = json.loads((reference / "detector/golden.json").read_text())
    tensors = load_file(reference / "detector/golden.safetensors")
    for i, entry in enumerate(golden["pictures"]):
        width, height = entry["size"]
        check_instances(tensors, i, input_size(height, width, golden["test_scale"]), height, width, unpack)
    tensors = load_file(reference / "detector/post.safetensors")
    for i, case in enumerate(json.loads((reference / "detector/post.json").read_text())["cases"]):
        (width, height), *size = case["size"], case["resized"][::-1], case["padded"][::-1]
        check_instances(tensors, i, InputSize(*map(tuple, size)), height, width, unpack)


def test_outputs_of_the_network_are_mmdets(reference: Path, load_image: LoadImage) -> None:
    golden = json.loads((reference / "detector/golden.json").read_text())
    tensors = load_file(reference / "detector/golden.safetensors")
    detector = Detector(str(reference / "detector"), scale=golden["test_scale"])
    for i, entry in enumerate(golden["pictures"]):
        with torch.no_grad():
            (classes,), (masks,) = detector.outputs(load_image(reference / entry["file"])[None])
        torch.testing.assert_close(classes, tensors[f"class_logits_{i}"], rtol=0, atol=1e-3)
        torch.testing.assert_close(masks, tensors[f"mask_logits_{i}"], rtol=0, atol=1e-3)


SIZE = InputSize((32, 32), (32, 32))


def outputs() -> tuple[Tensor, Tensor]:
    """Three queries: a sure one whose mask is the left half, one of two classes with an empty mask, an unsure one."""
    classes, masks = torch.zeros(3, 81), torch.full((3, 8, 8), -9.0)
    classes[0, 5], classes[1, [7, 8]], classes[2, 80] = 12.0, 9.0, 12.0
    masks[0, :, :4] = masks[2] = 9.0
    return classes, masks


def test_instances_by_hand() -> None:
    found = instances(*outputs(), SIZE, 16, 16)
    assert len(found.labels) == 100
    best = int(found.scores.argmax())
    assert found.labels[best] == 5
    assert found.boxes[best].tolist() == [0, 0, 8, 16]  # the end is exclusive
    mask = found.masks[found.mask_index[best]]
    assert mask[:, :8].all()
    assert not mask[:, 8:].any()
    probability = 1 / (1 + 80 * math.exp(-12))
    inside = torch.nn.functional.interpolate(outputs()[1][None, :1], (32, 32), mode="bilinear")
    inside = torch.nn.functional.interpolate(inside, (16, 16), mode="bilinear")[0, 0, :, :8]
    assert found.scores[best].item() == pytest.approx(probability * inside.sigmoid().mean().item(), rel=1e-5)
    two = [found.labels.tolist().index(label) for label in (7, 8)]
    assert found.mask_index[two[0]] == found.mask_index[two[1]]
    assert found.scores[two].tolist() == [0, 0]  # an empty mask
    assert found.boxes[two].tolist() == [[0, 0, 0, 0]] * 2


def test_what_is_left_out_to_save_time_changes_nothing_else() -> None:
    everything, sure = (instances(*outputs(), SIZE, 20, 12, min_class_probability=p) for p in (0.0, 0.3))
    kept = everything.scores > 0.3
    assert sorted(sure.labels.tolist()) == [5, 7, 8]
    one = sure.labels == 5
    assert torch.equal(sure.scores[one], everything.scores[kept])
    assert torch.equal(sure.boxes[one], everything.boxes[kept])
    none = instances(*outputs(), SIZE, 20, 12, min_class_probability=1.0)
    assert len(none.labels) == len(none.boxes) == len(none.masks) == 0


def test_images_are_detected_alike_in_batches_and_alone(detector_folder: Path) -> None:
    detector = Detector(str(detector_folder), scale=(64, 48))
    images = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = detector.detect(images), [detector.detect(image[None])[0] for image in images]
    assert [len(one) for one in together] == [100] * 3
    for pair in zip(together, alone, strict=True):
        a, b = (sorted((o.confidence for o in one), reverse=True) for one in pair)
        assert a == pytest.approx(b, abs=1e-5)


OLD = {"tv": "tvmonitor", "couch": "sofa", "potted plant": "pottedplant", "computer mouse": "mouse"}


def test_old_names_of_classes_are_known(make_detector: Callable[..., Path], tmp_path: Path) -> None:
    names = {index: OLD.get(name, name) for index, name in enumerate(CLASSES)}
    assert Detector(str(make_detector(tmp_path / "old", id2label=names))).model.config.id2label[62] == "tvmonitor"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": {i: f"LABEL_{i}" for i in range(80)}}, "label 0 'LABEL_0', not 'person'"),
        ({"id2label": {0: "cat", 1: "dog"}}, "has 2 labels; .* COCO's 80 classes"),
    ],
)
def test_other_labels_are_refused(
    change: dict[str, object], message: str, make_detector: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        Detector(str(make_detector(tmp_path / "other", **change)))


def test_what_is_no_detector_is_refused(detector_folder: Path, clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((detector_folder / "config.json").read_text())
    weights = load_file(detector_folder / "model.safetensors")
    broken = {
        "no file": (tmp_path, "cannot be read"),
        "no such folder": (tmp_path / "absent", "geneval: the detector: no checkpoint at"),
        "no config": (tmp_path.parent, "geneval: the detector: .*config.json is missing"),
        "another architecture": (clip_folder, "holds a model of type 'clip', expected 'mask2former'"),
    }
    for folder, message in broken.values():
        with pytest.raises(UserError, match=message):
            Detector(str(folder))
    name = "model.transformer_module.queries_features.weight"
    for part, message in (
        ({key: value for key, value in weights.items() if key != name}, f"lacks {name}"),
        (weights | {name: torch.zeros(5, 32)}, "of shape .5, 32., but its config.json makes it .6, 32."),
    ):
        save_file(part, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=message):
            Detector(str(tmp_path))
