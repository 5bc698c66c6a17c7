"""The converter of mmdet's checkpoint."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation

from unirl_geneval.cli import main
from unirl_geneval.vocabulary import CLASSES


def load(folder: Path) -> Any:
    return Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()


@torch.no_grad()
def check_equal(a: Any, b: Any) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    unused = re.compile(r"encoder\.(swin\.)?layernorm")  # no output goes through it, and mmdet has none
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if not unused.search(name))
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs, expected = a(pixels), b(pixels)
    assert torch.equal(outputs.class_queries_logits, expected.class_queries_logits)
    assert torch.equal(outputs.masks_queries_logits, expected.masks_queries_logits)


def test_mmdets_own_file_becomes_the_model(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new/detector"
    main(["convert", str(reference / "detector/mmdet_checkpoint.pth"), str(out)])
    assert f"--model.judge.detector {out}" in capsys.readouterr().out
    check_equal(load(out), load(reference / "detector"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["detector"]


JOINED = {
    r"\.attention\.self\.(query|key|value)\.": ".attention.self.qkv.",
    r"\.self_attn\.(q|k|v)_proj\.": ".self_attn.in_proj_",
}
NAMES = {
    r"^model\.pixel_level_module\.encoder\.": "backbone.",
    r"^model\.pixel_level_module\.decoder\.": "panoptic_head.pixel_decoder.",
    r"^model\.transformer_module\.decoder\.mask_predictor\.mask_embedder\.": "panoptic_head.mask_embed.",
    r"^model\.transformer_module\.decoder\.": "panoptic_head.transformer_decoder.",
    r"^model\.transformer_module\.": "panoptic_head.",
    r"^class_predictor": "panoptic_head.cls_embed",
    r"mask_embed\.(\d)\.0": lambda match: f"mask_embed.{2 * int(match[1])}",
    r"embeddings\.(patch_embeddings\.)?": "patch_embed.",
    r"hidden_states_norms\.stage(\d)": lambda match: f"norm{int(match[1]) - 1}",
    r"backbone\.encoder\.layers": "backbone.stages",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.self\.": "attn.w_msa.",
    r"attention\.output\.dense": "attn.w_msa.proj",
    r"intermediate\.dense": "ffn.layers.0.0",
    r"output\.dense": "ffn.layers.1",
    r"input_projections\.(\d)\.0": r"input_convs.\1.conv",
    r"input_projections\.(\d)\.1": r"input_convs.\1.gn",
    r"adapter_1\.0": "lateral_convs.0.conv",
    r"adapter_1\.1": "lateral_convs.0.gn",
    r"layer_1\.0": "output_convs.0.conv",
    r"layer_1\.1": "output_convs.0.gn",
    r"mask_projection": "mask_feature",
    r"pixel_decoder\.level_embed": "pixel_decoder.level_encoding.weight",
    r"fc1": "ffns.0.layers.0.0",
    r"fc2": "ffns.0.layers.1",
    r"(pixel_decoder.*)self_attn_layer_norm": r"\1norms.0",
    r"(pixel_decoder.*)final_layer_norm": r"\1norms.1",
    r"(pixel_decoder.*)self_attn\.": r"\1attentions.0.",
    r"cross_attn_layer_norm": "norms.0",
    r"self_attn_layer_norm": "norms.1",
    r"final_layer_norm": "norms.2",
    r"cross_attn\.": "attentions.0.attn.",
    r"self_attn\.": "attentions.1.attn.",
    r"transformer_decoder\.layernorm": "transformer_decoder.post_norm",
    r"queries_embedder": "query_embed",
    r"queries_features": "query_feat",
}
"""From transformers' names to mmdet's, in this order."""


def mmdet_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A detector's weights as mmdet has them."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if re.search(r"encoder\.(swin\.)?layernorm|^criterion", name):
            continue
        value, new = tensor, name
        for pattern, joined in JOINED.items():
            if match := re.search(pattern, name):
                parts = ("query", "key", "value") if match[1] in ("query", "key", "value") else "qkv"
                value = torch.cat([weights[name[: match.start(1)] + part + name[match.end(1) :]] for part in parts])
                new = re.sub(pattern, joined, name)
        for pattern, replacement in NAMES.items():
            new = re.sub(pattern, replacement, new)
        found[new] = merged_as_mmdet(value) if ".downsample." in new else value
    return found


def merged_as_mmdet(tensor: Tensor) -> Tensor:
    """mmdet's index of a merged channel is 4 c + 2 row + column, transformers' (2 column + row) C + c."""
    channels = tensor.shape[-1] // 4
    index = [(2 * column + row) * channels + c for c in range(channels) for row in (0, 1) for column in (0, 1)]
    return tensor[..., index]


@pytest.fixture
def checkpoint(detector_folder: Path, tmp_path: Path) -> Path:
    """A tiny detector as mmdet saves it."""
    weights = load_file(detector_folder / "model.safetensors")
    path = tmp_path / "mmdet.pth"
    meta = {"CLASSES": tuple("mouse" if name == "computer mouse" else name for name in CLASSES), "epoch": 50}
    torch.save({"meta": meta, "state_dict": mmdet_weights(weights)}, path)
    return path


def test_a_converted_detector_is_the_same(checkpoint: Path, detector_folder: Path, tmp_path: Path) -> None:
    main(["convert", str(checkpoint), str(tmp_path / "out")])
    converted = load(tmp_path / "out")
    check_equal(converted, load(detector_folder))
    assert converted.config.id2label[64] == "mouse"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("state_dict"), "holds no Mask2Former of mmdet"),
        (lambda c: c["state_dict"].pop("panoptic_head.cls_embed.weight"), "holds no Mask2Former of mmdet"),
        (lambda c: c["state_dict"].update({"panoptic_head.cls_embed.weight": torch.zeros(9, 32)}), "has 8 classes"),
        (
            lambda c: c["state_dict"].update({"panoptic_head.new.weight": torch.zeros(9)}),
            "unknown tensor panoptic_head.new",
        ),
        (lambda c: c["state_dict"].pop("panoptic_head.query_feat.weight"), "is no Mask2Former of mmdet 2.x"),
        (lambda c: c["state_dict"].pop("panoptic_head.query_embed.weight"), "lacks model.transformer_module.queries_e"),
        (
            lambda c: c["state_dict"].update(
                {"x.transformer_decoder.layers.0.cross_attn.attn.in_proj_bias": torch.zeros(1)}
            ),
            "is of mmdet 3.x",
        ),
    ],
)
def test_another_file_is_refused_and_nothing_is_written(
    change: Callable[[dict[str, Any]], object],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, checkpoint)
    with pytest.raises(SystemExit):
        main(["convert", str(checkpoint), str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mmdet.pth"]


class Other:
    """What only a pickle that runs code could bring back."""


def test_a_folder_that_cannot_be_written_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (checkpoint / "out", checkpoint):
        with pytest.raises(SystemExit):
            main(["convert", str(checkpoint), str(out)])
        said = capsys.readouterr().err
        assert str(out) in said
        assert said.count("\n") == 1


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.pth").write_bytes(b"PK\x03\x04")
    torch.save({"state_dict": Other()}, tmp_path / "code.pth")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for name, out, message in (
        ("absent.pth", "out", "there is no file"),
        ("short.pth", "out", "cannot be read"),
        ("code.pth", "out", "never code"),
        ("code.pth", "full", "is not empty"),
    ):
        with pytest.raises(SystemExit):
            main(["convert", str(tmp_path / name), str(tmp_path / out)])
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
