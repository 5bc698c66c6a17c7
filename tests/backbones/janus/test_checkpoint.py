"""Checkpoints: transformers' own, both ways; what does not belong together is refused in one line."""

import copy
import json
from pathlib import Path

import pytest
import torch
from tests.backbones.janus.tiny import save
from transformers import AutoModelForImageTextToText, AutoProcessor, JanusForConditionalGeneration

from unirl.backbones.janus import Janus
from unirl.backbones.janus.checkpoint import PUBLIC, check
from unirl.errors import UserError
from unirl.types import ImageSampling


def edit(folder: Path, name: str, **values: object) -> None:
    config = json.loads((folder / name).read_text())
    for key, value in values.items():
        part, _, inner = key.rpartition("__")
        (config[part] if part else config)[inner] = value
    (folder / name).write_text(json.dumps(config))


def test_what_is_saved_loads_in_plain_transformers(tmp_path: Path) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path / "a", tied=True)))
    with torch.no_grad():
        backbone.transformer.janus.lm_head.weight.add_(0.5)
    backbone.save_pretrained(tmp_path / "b")
    again = JanusForConditionalGeneration.from_pretrained(tmp_path / "b")
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path / "b")) is JanusForConditionalGeneration
    for name, parameter in backbone.transformer.janus.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name]), name
    processor = AutoProcessor.from_pretrained(tmp_path / "b")
    assert processor.chat_template == backbone.processor.chat_template
    ids = (again.generation_config.pad_token_id, again.generation_config.generation_kwargs["boi_token_id"])
    assert ids == (backbone.chat.pad, backbone.chat.begin_image)
    assert {path.suffix for path in (tmp_path / "b").iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_a_second_build_changes_nothing(checkpoint: Path) -> None:
    backbone = Janus(str(checkpoint))
    backbone.build()
    janus = backbone.transformer.janus
    backbone.build()
    assert backbone.transformer.janus is janus


def test_the_image_tokenizer_stays_frozen(checkpoint: Path) -> None:
    backbone = Janus.from_pretrained(str(checkpoint)).train()
    vq = backbone.transformer.parts.vqmodel
    assert not any(p.requires_grad for p in vq.parameters())
    assert not any(module.training for module in vq.modules())
    assert backbone.transformer.parts.language_model.training
    assert {type(m) for m in backbone.modules() if isinstance(m, backbone.blocks)} == set(backbone.blocks)


def test_other_ids_load(tmp_path: Path) -> None:
    one = Janus.from_pretrained(str(save(tmp_path / "a")))
    other = Janus.from_pretrained(str(save(tmp_path / "b", first="<unk> <pad> <eos> <bos>")))
    assert (one.chat.begin, one.chat.end, one.chat.pad) == (0, 1, 2)
    assert (other.chat.begin, other.chat.end, other.chat.pad) == (3, 2, 1)
    more = Janus.from_pretrained(str(save(tmp_path / "c", first="<bos> <eos> <pad> <unk> <image_placeholder> x y")))
    assert (one.chat.image, more.chat.image) == (24, 4)
    assert more.transformer.janus.config.image_token_id == 4


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sizes_build_on_the_meta_device(name: str) -> None:
    backbone = Janus(name)
    backbone.build(meta=True)
    parameters = sum(p.numel() for p in backbone.parameters())
    assert all(p.is_meta for p in backbone.parameters())
    assert parameters == pytest.approx(7.4e9 if "7B" in name else 2.1e9, rel=0.02)


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        (
            "config.json",
            {"model_type": "multi_modality"},
            "in its authors' format; give one for transformers",
        ),
        ("config.json", {"model_type": "llava"}, "says model_type 'llava'; a Janus checkpoint says 'janus'"),
        ("config.json", {"image_token_id": 7}, "image token id is 24, but config.json's image_token_id is 7"),
        ("config.json", {"vision_config__num_image_tokens": 9}, "num_image_tokens is 9, but .* patches is 16"),
        ("config.json", {"text_config__vocab_size": 20}, "no Janus can be loaded"),
        ("config.json", {"text_config__model_type": "qwen2"}, "text_config says model_type 'qwen2'"),
        ("processor_config.json", {"num_image_tokens": 5}, "num_image_tokens is 5, but .* patches is 16"),
        ("processor_config.json", {"image_processor__size": {"height": 64, "width": 64}}, "height is 64, but .* is 32"),
        ("processor_config.json", {"image_processor__size": {"height": 32, "width": 64}}, "width is 64, but .* is 32"),
        ("processor_config.json", {"image_processor__image_mean": None}, "does not normalize pictures"),
        ("processor_config.json", {"image_processor__do_normalize": False}, "does not normalize pictures"),
        ("generation_config.json", {"pad_token_id": 100015}, "pad_token_id is 100015; ids go from 0 to 28"),
        ("generation_config.json", {"bos_token_id": -1}, "bos_token_id is -1; ids go from 0 to 28"),
        ("generation_config.json", {"eos_token_id": [1, 99]}, "eos_token_id is 99; ids go from 0 to 28"),
        ("generation_config.json", {"generation_kwargs": {"boi_token_id": 3}}, "boi_token_id is 3; they do not belong"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, file: str, values: dict[str, object], says: str
) -> None:
    edit(save(tmp_path), file, **values)
    with pytest.raises(UserError, match=says) as error:
        Janus.from_pretrained(str(tmp_path))
    assert "\n" not in str(error.value)


FILES = ["config.json", "model.safetensors", "processor_config.json", "chat_template.jinja"]


@pytest.mark.parametrize("missing", FILES)
def test_missing_files_are_named(tmp_path: Path, missing: str) -> None:
    save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=r"missing|no Janus can be loaded|no processor can be read|no chat template"):
        Janus.from_pretrained(str(tmp_path))


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    weights = save(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="no Janus can be loaded") as error:
        Janus.from_pretrained(str(tmp_path))
    assert "\n" not in str(error.value)


def test_loading_is_silent(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Janus.from_pretrained(str(checkpoint)).sample_images(["red"], ImageSampling())
    out, err = capfd.readouterr()
    assert out + err == ""


@pytest.mark.parametrize(
    "values", [{"vision_config__image_size": [32, 32]}, {"text_config__num_attention_heads": 5}, {"vq_config": 3}]
)
def test_sizes_that_cannot_be_are_refused_without_weights_too(tmp_path: Path, values: dict[str, object]) -> None:
    edit(save(tmp_path), "config.json", **values)
    with pytest.raises(UserError, match="no Janus can be built from it") as error:
        Janus(str(tmp_path)).build(meta=True)
    assert "\n" not in str(error.value)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path)))
    backbone.processor.tokenizer.add_tokens(["green", "yellow", "pink"])
    backbone.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the tokenizer has 30 ids, the language model room for 29"):
        Janus.from_pretrained(str(tmp_path))


def test_a_painter_of_another_size_than_the_tower_is_refused(checkpoint: Path) -> None:
    backbone = Janus.from_pretrained(str(checkpoint))
    config = copy.deepcopy(backbone.transformer.janus.config)
    config.vq_config.num_patches = 8
    with pytest.raises(UserError, match=r"what the image tokenizer paints is 64, but .* image_size is 32"):
        check(config, backbone.processor, checkpoint)
