"""Checkpoints that cannot be loaded say so in one line, and unusual ones that can, load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unirl.backbones.checkpoints import locate
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


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def cut(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def test_no_folder(tmp_path: Path) -> None:
    complaint(lambda: Showo(str(tmp_path / "nothing")).build(), str(tmp_path / "nothing"), "give a local folder")


@pytest.mark.parametrize("error", [ConnectionError(), OSError("401\nUnauthorized"), RuntimeError(" \n ")])
def test_no_hub(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise error

    for name in ("list_repo_files", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{name}", unreachable)
    complaint(lambda: locate("nobody/nothing"), "nobody/nothing", type(error).__name__, "check the name")


def test_no_packaged_folder() -> None:
    complaint(lambda: locate("no_such_package:tiny"), "no_such_package", "install it")
    complaint(lambda: locate("unirl:tiny"), "'unirl' has no folder 'tiny'")


def test_no_config(copy: Path, load: Load) -> None:
    (copy / "config.json").unlink()
    complaint(lambda: load(copy), str(copy), "config.json is missing")


@pytest.mark.parametrize("content", ["{", "\xff", "[]", ""])
def test_broken_config(content: str, copy: Path, load: Load) -> None:
    (copy / "config.json").write_text(content, encoding="latin-1")
    complaint(lambda: load(copy), str(copy / "config.json"))


@pytest.mark.parametrize("name", ["vocab_size", "llm_vocab_size", "llm_model_path", "codebook_size", "num_vq_tokens"])
def test_a_config_without_a_key(name: str, copy: Path, load: Load) -> None:
    edit(copy / "config.json", **{name: None})
    complaint(lambda: load(copy), f"{copy}/config.json", f"{name} is missing")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 122}, ("vocab_size 122", "make 123")),
        ({"codebook_size": 128}, ("128 codes", "make 187", "config.json")),
        ({"mask_token_id": 121}, ("mask_token_id 121", "last id")),
        ({"w_clip_vit": True}, ("w_clip_vit", "use one with")),
        ({"num_vq_tokens": 15}, ("num_vq_tokens 15", "square")),
        ({"llm_model_path": "elsewhere"}, ("'elsewhere'", "/copy)", "give a local folder")),
    ],
)
def test_numbers_of_another_model(changes: dict[str, Any], words: tuple[str, ...], copy: Path, load: Load) -> None:
    edit(copy / "config.json", **changes)
    complaint(lambda: load(copy), *words)


TEXT_LENGTHS = (-5, 0, 2, 9.5, "8")
WRONG_SIZES = [
    *(("config.json", {"max_text_len": n}, f"max_text_len is {n!r}; expected a whole number") for n in TEXT_LENGTHS),
    ("config.json", {"max_text_len": 10**6}, "max_text_len 1000000; the text model has"),
    ("config.json", {"vocab_size": "8"}, "vocab_size is '8'; expected a whole number of 1 or more"),
    ("config.json", {"num_vq_tokens": 10**8}, "too few for a prompt and an image of 100000000 codes"),
    ("config.json", {"codebook_size": 0}, "codebook_size is 0; expected"),
    ("config.json", {"llm_model_path": 5}, "llm_model_path is 5; expected a folder or hub id"),
    ("llm/config.json", {"hidden_size": -5}, "no text model can be built of the config.json of llm"),
    ("llm/config.json", {"num_attention_heads": "8"}, "no text model can be built of the config.json of llm"),
    ("vq/config.json", {"encoder_blocks": [1, "a"]}, "encoder_blocks[1] is 'a'; expected"),
    ("vq/config.json", {"ch": 0}, "ch is 0; expected a whole number of 1 or more"),
]


@pytest.mark.parametrize(("file", "changes", "message"), WRONG_SIZES)
def test_sizes_out_of_range(file: str, changes: dict[str, Any], message: str, copy: Path) -> None:
    """Refused with the weights and without, as `unirl doctor` builds it."""
    edit(copy / file, **changes)
    for meta in (False, True):
        complaint(lambda meta=meta: Showo(str(copy), image_tokenizer="vq").build(meta=meta), str(copy), message)


def test_options_out_of_range(copy: Path) -> None:
    for name, value in (("max_text_len", 2), ("max_text_len", -5), ("max_text_len", 0), ("resolution", 0)):
        complaint(lambda name=name, value=value: Showo(str(copy), **{name: value}), f"{name} {value}; it must be")
    for meta in (False, True):
        too_long = Showo(str(copy), image_tokenizer="vq", max_text_len=10**6)
        complaint(lambda meta=meta, model=too_long: model.build(meta=meta), "max_text_len 1000000", "must be from 3 to")


@pytest.mark.parametrize("meta", [False, True])
def test_a_number_of_codes_that_does_not_make_the_resolution(meta: bool, copy: Path) -> None:
    """The name of the checkpoint says another one than its config; the option decides."""
    folder = copy.rename(copy.parent / "show-o-128x128")

    def build(resolution: int | None = None) -> int:
        backbone = Showo(str(folder), image_tokenizer="vq", resolution=resolution)
        backbone.build(meta=meta)
        return backbone.config.num_vq_tokens

    complaint(build, "num_vq_tokens 16", "64x64 px", "128x128, which is 64 codes", "resolution to 128, or to 64")
    assert (build(64), build(128)) == (16, 64)
    complaint(lambda: build(72), "resolution 72", "multiple of 16")


def test_a_consistent_larger_vocabulary_does_not_fit_the_weights(copy: Path, load: Load) -> None:
    edit(copy / "config.json", vocab_size=133, llm_vocab_size=58, mask_token_id=132)
    complaint(lambda: load(copy), str(copy), "(123,", "(133,", "do not belong")


def test_weights_of_another_width(copy: Path, load: Load) -> None:
    edit(copy / "llm" / "config.json", hidden_size=32)
    complaint(lambda: load(copy), str(copy), "has shape", "config.json makes it")


@pytest.mark.parametrize("layers", [2, 4])
def test_weights_of_another_depth(layers: int, copy: Path, load: Load) -> None:
    edit(copy / "llm" / "config.json", num_hidden_layers=layers)
    complaint(lambda: load(copy), str(copy), "the checkpoint", "such tensors")


@pytest.mark.parametrize("where", ["model.safetensors", "vq/model.safetensors"])
@pytest.mark.parametrize("keep", [0, 0.001, 0.5, 0.999])
def test_truncated_weights(where: str, keep: float, copy: Path, load: Load) -> None:
    cut(copy / where, keep)
    complaint(lambda: load(copy), str(copy / where), "truncated or broken, download it again")


@pytest.mark.parametrize("name", ["model.safetensors", "vq/model.safetensors"])
def test_an_unknown_tensor(name: str, copy: Path, load: Load) -> None:
    save_file(load_file(copy / name) | {"showo.extra.weight": torch.zeros(1)}, copy / name)
    complaint(lambda: load(copy), "extra.weight", "wrong checkpoint?")


def test_an_image_tokenizer_of_another_codebook(copy: Path, load: Load) -> None:
    edit(copy / "vq" / "config.json", z_channels=7)
    complaint(lambda: load(copy), str(copy / "vq"), "7 bits make 128 codes, not 64")


def test_no_image_tokenizer(copy: Path) -> None:
    complaint(Showo(str(copy), image_tokenizer="./gone").build, "./gone", "give a local folder")


def test_a_tokenizer_too_large(copy: Path, load: Load) -> None:
    path = copy / "tokenizer" / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["w14"] = 48
    path.write_text(json.dumps(values))
    complaint(lambda: load(copy), str(copy), "has 49 ids", "room for 48 text ids")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer(name: str, copy: Path, load: Load) -> None:
    (copy / "tokenizer" / name).write_text("{")
    complaint(lambda: load(copy), str(copy / "tokenizer"))


def test_no_tokenizer(copy: Path, load: Load) -> None:
    for file in (copy / "tokenizer").iterdir():
        file.unlink()
    complaint(lambda: load(copy), str(copy / "tokenizer"))
