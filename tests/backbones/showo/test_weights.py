"""Weights in every form that loads, and forms that do not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unirl.backbones.checkpoints import WEIGHT_NAMES, load_exactly
from unirl.backbones.showo import Showo
from unirl.errors import UserError

Load = Callable[..., Showo]


def complaint(build: Callable[[], object], *words: str) -> str:
    """The error's text: one line that contains all the words."""
    with pytest.raises(UserError) as caught:
        build()
    text = str(caught.value)
    assert "\n" not in text.strip()
    for word in words:
        assert word in text, text
    return text


@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.99])
def test_truncated_pickle(keep: float, copy: Path, load: Load) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    content = (copy / "pytorch_model.bin").read_bytes()
    (copy / "pytorch_model.bin").write_bytes(content[: int(len(content) * keep)])
    complaint(lambda: load(copy), str(copy / "pytorch_model.bin"), "download it again")


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02garbage", b"<html>"])
def test_a_pickle_that_is_something_else(content: bytes, copy: Path, load: Load) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(content)
    complaint(lambda: load(copy), str(copy / "pytorch_model.bin"), "download it again")


def test_no_weights(copy: Path, load: Load) -> None:
    (copy / "model.safetensors").unlink()
    complaint(lambda: load(copy), str(copy), "holds no weights", "model.safetensors")


def shard(folder: Path, suffix: str) -> list[Path]:
    """Cut the weights in two files with an index, as transformers does."""
    weights, names = load_file(folder / "model.safetensors"), [f"part-{i}.{suffix}" for i in range(2)]
    (folder / "model.safetensors").unlink()
    where = {name: names[i % 2] for i, name in enumerate(weights)}
    for file in names:
        part = {name: tensor for name, tensor in weights.items() if where[name] == file}
        (save_file if suffix == "safetensors" else torch.save)(part, folder / file)
    base = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    (folder / f"{base}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return [folder / name for name in names]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_load(suffix: str, copy: Path, load: Load, backbone: Showo) -> None:
    shard(copy, suffix)
    for name, tensor in load(copy).state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name]), name


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_missing_shard(suffix: str, copy: Path, load: Load) -> None:
    gone = shard(copy, suffix)[1]
    gone.unlink()
    complaint(lambda: load(copy), str(copy), gone.name, "download it again")


def test_a_broken_index(copy: Path, load: Load) -> None:
    shard(copy, "safetensors")
    (copy / "model.safetensors.index.json").write_text("{}")
    complaint(lambda: load(copy), str(copy / "model.safetensors.index.json"), "weight_map")


@pytest.mark.parametrize("name", WEIGHT_NAMES)
def test_every_public_file_name_loads(name: str, copy: Path, load: Load, backbone: Showo) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    (save_file if name.endswith("safetensors") else torch.save)(weights, copy / name)
    for key, tensor in load(copy).state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[key]), key


def test_a_pickle_with_code_is_not_run(copy: Path, load: Load) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"showo.x": Path("anything")}, copy / "pytorch_model.bin")
    complaint(lambda: load(copy), str(copy / "pytorch_model.bin"))


def test_leftovers_that_may_be_ignored() -> None:
    module = torch.nn.Linear(1, 1)
    load_exactly(module, module.state_dict() | {"quantize.x": torch.zeros(1)}, Path("here"), ignore=("quantize.",))
