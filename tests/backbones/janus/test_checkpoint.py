"""Checkpoints: transformers' own, both ways; what does not belong together is refused in one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    reloaded = JanusForConditionalGeneration.from_pretrained(tmp_path / "b")
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path / "b")) is JanusForConditionalGeneration
    for name, parameter in backbone.transformer.janus.state_dict().items():
        assert torch.equal(parameter, reloaded.state_dict()[name]), name
    processor = AutoProcessor.from_pretrained(tmp_path / "b")
    assert processor.chat_template == backbone.processor.chat_template
    ids = (reloaded.generation_config.pad_token_id, reloaded.generation_config.generation_kwargs["boi_token_id"])
    assert ids == (backbone.chat.pad_token_id, backbone.image_start_id)
    assert {path.suffix for path in (tmp_path / "b").iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_building_twice_changes_nothing(checkpoint: Path) -> None:
    backbone = Janus(str(checkpoint))
    backbone.build()
    janus = backbone.transformer.janus
    backbone.build()
    assert backbone.transformer.janus is janus


def test_the_image_tokenizer_stays_frozen(checkpoint: Path) -> None:
    backbone = Janus.from_pretrained(str(checkpoint)).train()
    vq = backbone.transformer.base_model.vqmodel
    assert not any(p.requires_grad for p in vq.parameters())
    assert {type(m) for m in backbone.modules() if isinstance(m, backbone.blocks)} == set(backbone.blocks)


def test_dropout_of_the_config_stays_off_in_training(tmp_path: Path) -> None:
    edit(save(tmp_path), "config.json", text_config__attention_dropout=0.3, vision_config__hidden_dropout_rate=0.3)
    backbone = Janus.from_pretrained(str(tmp_path)).train()
    sampling, rng = ImageSampling(guidance=2.0), torch.Generator().manual_seed(0)
    images = backbone.sample_images(["red", "two circle"], sampling, rng)
    scored, _ = backbone.image_log_probs(["red", "two circle"], images, sampling)
    assert (scored - images.log_probs).abs().max() < 1e-4
    assert any(parameter.requires_grad for parameter in backbone.parameters())


def test_other_ids_load(tmp_path: Path) -> None:
    one = Janus.from_pretrained(str(save(tmp_path / "a")))
    other = Janus.from_pretrained(str(save(tmp_path / "b", first="<unk> <pad> <eos> <bos>")))
    ids = [(chat.bos_token_id, chat.eos_token_ids, chat.pad_token_id) for chat in (one.chat, other.chat)]
    assert ids == [(0, [1], 2), (3, [2], 1)]
    more = Janus.from_pretrained(str(save(tmp_path / "c", first="<bos> <eos> <pad> <unk> <image_placeholder> x y")))
    assert (one.chat.image_token_id, more.chat.image_token_id) == (24, 4)
    assert more.transformer.janus.config.image_token_id == 4


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sizes_build_on_the_meta_device(name: str) -> None:
    backbone = Janus(name)
    backbone.build(meta=True)
    parameters = sum(p.numel() for p in backbone.parameters())
    assert all(p.is_meta for p in backbone.parameters())
    assert parameters == pytest.approx(7.4e9 if "7B" in name else 2.1e9, rel=0.02)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "multi_modality"}, "has no language_config with the values that Janus"),
        (
            "config.json",
            {"model_type": "llava"},
            "'llava'; that of a Janus checkpoint is 'janus' .*or 'multi_modality'",
        ),
        ("config.json", {"image_token_id": 7}, "image token id is 24, but config.json's image_token_id is 7"),
        ("config.json", {"vision_config__num_image_tokens": 9}, "num_image_tokens is 9, but .* patches is 16"),
        (
            "config.json",
            {"text_config__max_position_embeddings": 16},
            "max_position_embeddings is 16, and an image has 16 tokens; expected more",
        ),
        ("generation_config.json", {"pad_token_id": "8"}, "no Janus can be loaded"),
        ("config.json", {"text_config": "llama"}, "text_config is 'llama'; expected an object"),
        ("config.json", {"text_config": None}, "text_config is None; expected an object"),
        (
            "config.json",
            {"text_config__vocab_size": 20},
            r"weight has shape \(29, 32\), but config.json makes it \(20, 32\)",
        ),
        (
            "config.json",
            {"text_config__rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
            "rope_type 'dynamic' makes a sample depend on the longest of its batch",
        ),
        ("config.json", {"text_config__model_type": "qwen2"}, "text_config has model_type 'qwen2'"),
        ("processor_config.json", {"num_image_tokens": 5}, "num_image_tokens is 5, but .* patches is 16"),
        ("processor_config.json", {"image_processor__size": {"height": 64, "width": 64}}, "height is 64, but .* is 32"),
        ("processor_config.json", {"image_processor__size": {"height": 32, "width": 64}}, "width is 64, but .* is 32"),
        ("processor_config.json", {"image_processor__image_mean": None}, "does not normalize images"),
        ("processor_config.json", {"image_processor__size": None}, "height is None, but .* is 32"),
        (
            "processor_config.json",
            {"image_processor__image_std": [0.5]},
            "image_std is .*0.5.*; expected three numbers",
        ),
        ("generation_config.json", {"pad_token_id": 100015}, "pad_token_id is 100015; ids go from 0 to 28"),
        ("generation_config.json", {"bos_token_id": -1}, "bos_token_id is -1; ids go from 0 to 28"),
        ("generation_config.json", {"eos_token_id": [1, 99]}, "eos_token_id is 99; ids go from 0 to 28"),
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id is '</s>'; ids go from 0 to 28"),
        ("generation_config.json", {"eos_token_id": 5}, "eos_token_id is 1, but .* eos_token_id is 5; they do not"),
        ("generation_config.json", {"bos_token_id": 2}, "bos_token_id is 0, but .* bos_token_id is 2; they do not"),
        ("generation_config.json", {"generation_kwargs": {"boi_token_id": 3}}, "boi_token_id is 3; they do not belong"),
    ],
)
def test_mismatched_parts_are_refused(tmp_path: Path, file: str, values: dict[str, object], message: str) -> None:
    edit(save(tmp_path), file, **values)
    with pytest.raises(UserError, match=message) as error:
        Janus.from_pretrained(str(tmp_path))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError):  # `unirl doctor` tells, too
        Janus(str(tmp_path)).build(meta=True)


@pytest.mark.parametrize("scale", [-5, "8", True, [], float("inf")])
def test_a_guidance_scale_out_of_range_is_refused(tmp_path: Path, scale: object) -> None:
    edit(save(tmp_path), "generation_config.json", guidance_scale=scale)
    backbone = Janus(str(tmp_path))
    backbone.build(meta=True)
    with pytest.raises(UserError, match=r"generation_config.json's guidance_scale is .*; expected a number from 0"):
        _ = backbone.sampling_config


def without_bos(words: Any) -> None:
    words["post_processor"] = None


def with_eos(words: Any) -> None:
    words["post_processor"]["single"].append({"SpecialToken": {"id": "<eos>", "type_id": 0}})
    words["post_processor"]["special_tokens"]["<eos>"] = {"id": "<eos>", "ids": [1], "tokens": ["<eos>"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_bos, r"begins a prompt with '<unk>' \(id 3\), not with '<bos>' \(id 0\) .* add_bos_token: true"),
        (with_eos, r"ends a prompt with '<eos>' \(id 1\), not with '<begin_of_image>' \(id \d+\) as in training"),
    ],
)
def test_prompts_that_are_not_written_as_in_training_are_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    file = save(tmp_path) / "tokenizer.json"
    words = json.loads(file.read_text())
    change(words)
    file.write_text(json.dumps(words))
    for meta in (False, True):
        with pytest.raises(UserError, match=message):
            Janus(str(tmp_path)).build(meta)


def test_the_begin_of_text_that_the_tokenizers_config_asks_for(tmp_path: Path) -> None:
    """Files of transformers before version 5 have it there, and not in tokenizer.json."""
    expected = Janus.from_pretrained(str(save(tmp_path / "a"))).prompt_ids(["red"])
    words = json.loads((save(tmp_path / "b") / "tokenizer.json").read_text())
    without_bos(words)
    (tmp_path / "b" / "tokenizer.json").write_text(json.dumps(words))
    edit(tmp_path / "b", "tokenizer_config.json", add_bos_token=True)
    backbone = Janus.from_pretrained(str(tmp_path / "b"))
    assert backbone.prompt_ids(["red"]) == expected
    backbone.save_pretrained(tmp_path / "c")
    assert Janus.from_pretrained(str(tmp_path / "c")).prompt_ids(["red"]) == expected


def test_a_chat_template_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path) / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|User|>", "<|Human|>"))
    with pytest.raises(UserError, match=r"chat template writes '<\|Human\|>', which is no token of its tokenizer"):
        Janus.from_pretrained(str(tmp_path))


def test_do_normalize_of_the_file_holds_for_questions_only(tmp_path: Path) -> None:
    edit(save(tmp_path), "processor_config.json", image_processor__do_normalize=False)
    backbone, pixels = Janus.from_pretrained(str(tmp_path)), torch.rand(1, 3, 32, 32)
    expected = backbone.transformer.embed_pixels(pixels)
    assert torch.equal(backbone.embed_images(backbone.encode(pixels)), expected)
    assert (backbone.mean.flatten().tolist(), backbone.std.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)
    chosen = Janus(str(tmp_path), do_normalize=True)
    with pytest.warns(UserWarning, match="has do_normalize false, but images that are asked about are normalized"):
        chosen.build()
    torch.testing.assert_close(chosen.embed_images(backbone.encode(pixels / 2 + 0.5)), expected)


def test_ids_of_generation_config_hold_without_weights(tmp_path: Path) -> None:
    """Where `text_config` has none, its defaults are those of another tokenizer."""
    file = save(tmp_path, first="<unk> <pad> <eos> <bos>") / "config.json"
    config = json.loads(file.read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        config["text_config"].pop(name, None)
    file.write_text(json.dumps(config))
    meta = Janus(str(tmp_path))
    meta.build(meta=True)
    assert (meta.chat.bos_token_id, meta.chat.eos_token_ids, meta.chat.pad_token_id) == (3, [2], 1)


@pytest.mark.parametrize("tied", [False, True])
def test_an_old_config_without_a_word_of_its_head_has_the_size_that_its_weights_have(
    tmp_path: Path, tied: bool
) -> None:
    config = json.loads((save(tmp_path, tied=tied) / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    meta = Janus(str(tmp_path))
    meta.build(meta=True)
    loaded = Janus.from_pretrained(str(tmp_path))
    assert sum(p.numel() for p in meta.parameters()) == sum(p.numel() for p in loaded.parameters())


@pytest.mark.parametrize(
    "scaling",
    [
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.27, 0.26, 0.27]},
    ],
)
def test_images_are_normalized_as_by_the_processor(tmp_path: Path, scaling: dict[str, object]) -> None:
    edit(save(tmp_path), "processor_config.json", **{f"image_processor__{k}": v for k, v in scaling.items()})
    backbone = Janus.from_pretrained(str(tmp_path))
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = backbone.processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
    own = (image / 255 - backbone.mean) / backbone.std
    assert (own - expected).abs().max() < 1e-5


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
    with pytest.raises(UserError, match="the tokenizer has 30 ids, the language model 29"):
        Janus.from_pretrained(str(tmp_path))


def test_an_image_tokenizer_of_another_size_than_the_vision_tower_is_refused(checkpoint: Path) -> None:
    backbone = Janus.from_pretrained(str(checkpoint))
    config = copy.deepcopy(backbone.transformer.janus.config)
    config.vq_config.num_patches = 8
    with pytest.raises(UserError, match=r"images that the image tokenizer decodes is 64, but .* image_size is 32"):
        check(config, backbone.processor, checkpoint)
