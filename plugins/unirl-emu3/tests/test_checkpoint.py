"""Checkpoints: transformers' own format both ways, and clear refusals of what does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Emu3ForConditionalGeneration, Emu3Processor

from unirl.errors import UserError
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save


def edited(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def test_what_is_saved_is_what_transformers_loads(backbone: Emu3, tmp_path: Path) -> None:
    backbone.save_pretrained(tmp_path)
    reloaded = Emu3.from_pretrained(str(tmp_path))
    assert reloaded.transformer.size == backbone.transformer.size  # the size of its images is the checkpoint's, too
    plain = Emu3ForConditionalGeneration.from_pretrained(tmp_path)
    expected = backbone.transformer.model.state_dict()
    for model in (reloaded.transformer.model, plain):
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert plain.config.text_config.attention_dropout == 0.1
    texts = (Emu3Processor.from_pretrained(tmp_path), backbone.processor)
    one, other = (t(text=["two circles"], return_for_image_generation=True)["input_ids"] for t in texts)
    assert one == other


def test_the_image_tokenizer_is_frozen_and_the_rest_is_not(backbone: Emu3) -> None:
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen
    assert all("vqmodel" in name for name in frozen)
    assert {name for name, _ in backbone.named_parameters() if "vqmodel" in name} == frozen
    layers = [m for m in backbone.modules() if isinstance(m, backbone.blocks)]
    assert len(layers) == backbone.transformer.model.config.text_config.num_hidden_layers


def test_a_public_size_is_built_on_the_meta_device_without_files() -> None:
    backbone = Emu3("BAAI/Emu3-Gen-hf")
    backbone.build(meta=True)
    assert all(p.is_meta for p in backbone.parameters())
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == pytest.approx(8.5e9, rel=0.02)
    assert backbone.transformer.size == (90, 90)  # 720 x 720 pixels
    with pytest.raises(UserError, match="sizes of 'owner/other' are not known without its files; known: BAAI"):
        Emu3("owner/other").build(meta=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": "wide"}, "ratio 'wide': expected width:height"),
        ({"ratio": "1:0"}, "ratio '1:0': expected width:height"),
        ({"image_area": 10}, "image_area 10: expected the number of pixels, at least 64"),
    ],
)
def test_invalid_sizes_are_refused_by_the_constructor(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Emu3("anything", **options)


def test_lengths_are_known_without_weights(checkpoint: Path) -> None:
    unbuilt, built = Emu3(str(checkpoint)), Emu3.from_pretrained(str(checkpoint))
    unbuilt.build(meta=True)
    assert all(p.is_meta for p in unbuilt.parameters())
    for backbone in (unbuilt, built):
        # 512 positions, 8 lines of 8 codes; the last line needs no end where it is generated
        assert backbone.max_prompt_length == 512 - 64 - 7
        assert backbone.max_question_length == 512 - len(built.image_context_ids) - 72 + 1
        assert backbone.prompt_lengths(["a red circle"]) == [len(built.prompt_ids(["a red circle"])[0])]
        assert backbone.answer_lengths(["red"]) == [built.tokenize_answers(["red"]).ids.shape[1]]


def test_negative_prompts_longer_than_the_context_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"negative_prompt has [0-9]+ tokens, and the model reads 441 before an image"):
        Emu3.from_pretrained(str(checkpoint), negative_prompt="blurry, " * 100)


def test_images_longer_than_the_context_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="ratio 1:1 makes 90 lines of 90 codes; the model reads 512"):
        Emu3.from_pretrained(str(checkpoint), image_area=518400)


BROKEN: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    (
        "config.json",
        lambda c: c.update(model_type="Emu3"),
        "in its authors' format; give one in transformers' format",
    ),
    ("config.json", lambda c: c.update(model_type="llama"), "model_type 'llama'; that of an Emu3 checkpoint is 'emu3'"),
    (
        "config.json",
        lambda c: c.pop("vocabulary_map"),
        "config.json has no vocabulary_map",
    ),
    (
        "config.json",
        lambda c: c["vocabulary_map"].update({"<|visual token 000003|>": 7}),
        r"<\|visual token 000003\|> is 7; the 40 codes of the codebook must be there, one after another",
    ),
    (
        "config.json",
        lambda c: c["vocabulary_map"].update({"<|extra_200|>": 5}),
        r"<\|extra_200\|> is [0-9]+ in the tokenizer and 5 in config.json's vocabulary_map",
    ),
    ("generation_config.json", lambda c: c.update(ratio="wide"), "ratio 'wide': expected width:height"),
    ("generation_config.json", lambda c: c.update(image_area=-5), "generation_config.json: image_area -5: expected"),
    ("generation_config.json", lambda c: c.update(eos_token_id="8"), "eos_token_id is '8'; ids go from 0 to 304"),
    ("config.json", lambda c: c["text_config"].update(num_hidden_layers=3), "missing tensors, such as model"),
    ("config.json", lambda c: c["text_config"].update(hidden_size=48), "no Emu3 can be loaded|weight has shape"),
]


@pytest.mark.parametrize(("file", "change", "message"), BROKEN)
def test_checkpoints_whose_parts_do_not_fit_are_refused(tmp_path: Path, file: str, change: Any, message: str) -> None:
    edited(save(tmp_path), file, change)
    with pytest.raises(UserError, match=message) as refusal:
        Emu3.from_pretrained(str(tmp_path), image_area=32 * 32)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "no image before the question|no chat template"),
        ("TODO: should be almost same as llava-1.5 vicuna", "no image before the question"),
        ("{%for m in messages%}{{m['content'][-1]['text']}}{%endfor%}<image>", "no image before the question"),
    ],
)
def test_chat_templates_without_a_place_for_the_image_are_refused(tmp_path: Path, template: str, message: str) -> None:
    (save(tmp_path) / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=message):
        Emu3.from_pretrained(str(tmp_path), image_area=32 * 32)


def test_a_checkpoint_without_a_processor_is_refused(tmp_path: Path) -> None:
    for file in save(tmp_path).glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match="no processor can be read"):
        Emu3.from_pretrained(str(tmp_path), image_area=32 * 32)
