"""Janus in its authors' format: what it holds is the model of transformers, its prompts are written as theirs."""

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.backbones.janus.authors import BOS, EOS, NAMES, PAD, SIZE, authors_tensors, save, save_tensors
from tokenizers import Tokenizer
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from unirl.backbones.janus import Janus
from unirl.backbones.janus.authors_format import source_name
from unirl.backbones.janus.checkpoint import PUBLIC
from unirl.errors import UserError
from unirl.types import AnswerSampling, ImageSampling

PROMPTS, GREEDY = ["a photo of two red circles", "red"], ImageSampling(guidance=4.0, temperature=0.0)
QUESTIONS, SHORT = ["what color is it?", "how many?"], AnswerSampling(max_tokens=5)
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n\n"
)


def load(folder: Path, **options: Any) -> Janus:
    backbone = Janus(str(folder), **options)
    backbone.build()
    return backbone.eval()


def random_images(count: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def assert_same(backbone: Janus, model: JanusForConditionalGeneration) -> None:
    state = backbone.transformer.janus.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the ways of Janus-1.3B."""
    folder = tmp_path_factory.mktemp("one")
    save(folder, do_normalize=False)
    return folder


@pytest.fixture(scope="module")
def pro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the ways of Janus-Pro."""
    folder = tmp_path_factory.mktemp("pro")
    save(folder, pro=True, layout="bin")
    return folder


@pytest.mark.parametrize("layout", ["safetensors", "bin", "sharded safetensors", "sharded bin"])
def test_every_layout_of_the_weights_loads(tmp_path: Path, layout: str) -> None:
    model = save(tmp_path, pro=layout == "sharded bin", layout=layout)
    assert_same(load(tmp_path), model)
    meta = Janus(str(tmp_path))
    meta.build(meta=True)
    assert all(parameter.is_meta for parameter in meta.parameters())
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in meta.transformer.janus.named_parameters()
    }


def test_old_pickles_load(tmp_path: Path) -> None:
    model = save(tmp_path, layout="bin")
    file = tmp_path / "pytorch_model.bin"
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    assert_same(load(tmp_path), model)


@pytest.mark.parametrize(
    ("kind", "roles"), [("one", ("User", "Assistant")), ("pro", ("<|User|>", "<|Assistant|>"))], ids=["one", "pro"]
)
@pytest.mark.filterwarnings("ignore:.* has do_normalize false")
def test_prompts_questions_and_answers_are_written_as_in_training(
    request: pytest.FixtureRequest, kind: str, roles: tuple[str, str]
) -> None:
    folder: Path = request.getfixturevalue(kind)
    backbone, words = load(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    user, assistant = roles

    def ids(text: str) -> list[int]:
        return words.encode(text, add_special_tokens=False).ids

    pad, (bos, start, end, eos) = ids(PAD), (ids(t)[0] for t in (BOS, "<begin_of_image>", "<end_of_image>", EOS))
    given = ["two red circles", "  red \n", "", "two\n\ncircles", "a < begin_of_image> circle"]
    assert backbone.prompt_ids(["a <begin_of_image> circle"]) == backbone.prompt_ids(given[-1:])  # text, as all of it
    for text, row in zip(given, backbone.prompt_ids(given), strict=True):
        said = f" {text.strip()}\n\n" if text else ""  # a turn without text has no line breaks either
        assert [*row, start] == [bos, *ids(f"{user}:{said}{assistant}:<begin_of_image>")]
        assert backbone.unconditional_ids(row) == [bos, *pad * (len(row) - 1)]
    assert [*backbone.image_context_ids] == [bos, *ids(f"{SYSTEM}{user}: <begin_of_image>")]
    assert backbone.question_ids(["how many?"]) == [[end, *ids(f"\nhow many?\n\n{assistant}:")]]
    answers = backbone.tokenize_answers(["red"])
    assert answers.ids[0].tolist() == [*ids(" red"), eos]
    assert backbone.image_start_id == start


@pytest.mark.parametrize("changed", [False, True], ids=["tied", "and-the-same-head"])
def test_tied_heads(tmp_path: Path, changed: bool) -> None:
    model = save(tmp_path, tied=True)
    if changed:
        save_tensors(tmp_path, authors_tensors(model), "safetensors")
    backbone = load(tmp_path)
    assert_same(backbone, model)
    assert backbone.transformer.janus.lm_head.weight is backbone.transformer.language_model.embed_tokens.weight


def test_the_image_tokenizer_says_its_own_size(tmp_path: Path) -> None:
    """Sizes are in no config, so a checkpoint without weights has those of the public ones."""
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    meta = Janus(str(tmp_path))
    meta.build(meta=True)
    vq = meta.transformer.base_model.vqmodel.config
    assert (vq.base_channels, tuple(vq.channel_multiplier), vq.latent_channels) == (128, (1, 1, 2, 2, 4), 256)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.startswith("deepseek-ai/")])
def test_public_checkpoints_have_so_many_tensors(name: str) -> None:
    meta = Janus(name)
    meta.build(meta=True)
    unused = sum(not there for there in NAMES.values())
    sources = {source_name(tensor) for tensor in meta.transformer.janus.state_dict()}
    assert len(sources) + unused == (936 if "7B" in name else 882)


# --- pixels ---


def test_normalization_is_chosen_and_said(one: Path, pro: Path) -> None:
    pixels, codes = random_images(2), torch.zeros(1, 16, dtype=torch.long)
    raw = load(one, do_normalize=False)  # as its file says
    with pytest.warns(UserWarning, match=r"has do_normalize false, but .* are normalized, .*; do_normalize: false of"):
        normalized = load(one)
    assert not torch.allclose(raw.embed_images(raw.encode(pixels)), normalized.embed_images(raw.encode(pixels)))
    halved = raw.embed_images(raw.encode(pixels * 2 - 1))
    torch.testing.assert_close(halved, normalized.embed_images(raw.encode(pixels)))
    decoded = [one._to_pixels(one.transformer.decode_codes(codes)) for one in (raw, normalized)]
    assert torch.equal(*decoded)
    with pytest.warns(UserWarning, match="has do_normalize true, but images that are asked about are not normalized"):
        load(pro, do_normalize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(pro)
        load(pro, do_normalize=True)


def test_generated_images_have_256_levels_by_option(pro: Path) -> None:
    exact, cut = load(pro), load(pro, uint8_pixels=True)
    images = exact.sample_images(PROMPTS, ImageSampling(), torch.Generator().manual_seed(0))
    pixels, levels = exact.decode(images), cut.decode(images)
    torch.testing.assert_close(levels, (pixels * 255).floor() / 255)
    assert not torch.equal(pixels, levels)
    answers = cut.tokenize_answers(["red"] * 2)
    seen = [one.answer_log_probs(images, QUESTIONS, answers) for one in (exact, cut)]
    assert not torch.equal(*seen)
    given = [one.answer_log_probs(one.encode(pixels), QUESTIONS, answers) for one in (exact, cut)]
    assert torch.equal(*given)  # an image from elsewhere is as it is


def test_256_levels_let_the_gradient_through(pro: Path) -> None:
    gradients = []
    for backbone in (load(pro), load(pro, uint8_pixels=True)):
        images = backbone.sample_images(PROMPTS, GREEDY)
        soft = backbone.straight_through(PROMPTS, images, GREEDY)
        assert soft.soft is not None
        weights = torch.linspace(-1, 1, 3 * SIZE * SIZE).view(1, 3, SIZE, SIZE)
        (gradient,) = torch.autograd.grad((backbone.decode(soft) * weights).sum(), soft.soft)
        gradients.append(gradient)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


# --- saving ---


@pytest.mark.parametrize("options", [{}, {"do_normalize": False}], ids=["normalized", "not"])
@pytest.mark.filterwarnings("ignore:.* has do_normalize")
@torch.no_grad()
def test_what_is_saved_is_transformers_own_with_equal_outputs(one: Path, tmp_path: Path, options: Any) -> None:
    backbone = load(one, **options)
    backbone.transformer.janus.lm_head.weight.mul_(1.5)
    backbone.save_pretrained(tmp_path)
    saved = load(tmp_path)
    assert_same(saved, backbone.transformer.janus)
    codes = backbone.sample_images(PROMPTS, GREEDY).codes
    assert torch.equal(saved.sample_images(PROMPTS, GREEDY).codes, codes)
    given = backbone.encode(random_images(2))
    answers = [one.sample_answers(given, QUESTIONS, SHORT) for one in (backbone, saved)]
    assert torch.equal(answers[0].log_probs, answers[1].log_probs)
    plain, processor = JanusForConditionalGeneration.from_pretrained(tmp_path), JanusProcessor.from_pretrained(tmp_path)
    messages = [[{"role": "user", "content": [{"type": "text", "text": prompt}]}] for prompt in PROMPTS]
    texts = [processor.apply_chat_template(message, add_generation_prompt=True) for message in messages]
    for text, expected in zip(texts, codes, strict=True):
        inputs = processor(text=[text], generation_mode="image", return_tensors="pt")
        assert torch.equal(plain.generate(**inputs, generation_mode="image", do_sample=False)[0], expected)


# --- damaged and incomplete folders ---


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)  # of copies: the file that they were mapped from is written anew
    save_file(tensors, folder / "model.safetensors")


def refusal(folder: Path, meta: bool = False) -> str:
    """What is said of a folder, in one line."""
    with pytest.raises(UserError) as error:
        Janus(str(folder)).build(meta=meta)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def damaged(one: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    return Path(shutil.copytree(one, tmp_path / "damaged"))


TENSORS = [
    ("gen_head.vision_head.bias", None, "1 missing tensors, such as gen_head.vision_head.bias"),
    ("vision_model.vision_tower.blocks.1.attn.qkv.bias", None, "such as vision_model.vision_tower.blocks.1.attn.qkv"),
    ("language_model.lm_head.weight", None, "1 missing tensors, such as language_model.lm_head.weight"),
    ("vision_model.vision_tower.patch_embed.proj.weight", None, "tensor vision_model.*proj.weight is missing"),
    ("gen_vision_model.quant_conv.weight", None, "tensor gen_vision_model.quant_conv.weight is missing"),
    ("gen_vision_model.quant_conv.weight", (8, 32), r"quant_conv.weight has shape \(8, 32\), expected 4 axes"),
    ("gen_embed.weight", (39, 8), r"gen_embed.weight has shape \(39, 8\), but .* make it \(40, 8\)"),
    ("vision_model.vision_tower.pos_embed", (1, 9, 32), r"pos_embed has shape \(1, 9, 32\), but .* \(1, 16, 32\)"),
    ("vision_model.vision_tower.pos_embed", (16, 32), r"pos_embed has shape \(16, 32\), but .* \(1, 16, 32\)"),
    ("vision_model.vision_tower.blocks.0.attn.qkv.weight", (95, 32), r"shape \(95, 32\), but .* \(96, 32\)"),
    ("language_model.model.embed_tokens.weight", (9, 32), r"embed_tokens.weight has shape \(9, 32\)"),
    ("gen_vision_model.encoder.conv_in.weight", (24, 3, 3, 3), "no Janus can be built|has shape"),
    ("extra.weight", (1,), "1 unexpected tensors, such as extra.weight"),
]


@pytest.mark.parametrize(("name", "shape", "message"), TENSORS)
def test_missing_and_misshapen_tensors(damaged: Path, name: str, shape: tuple[int, ...] | None, message: str) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = torch.zeros(shape)

    edit_tensors(damaged, change)
    assert re.search(message, refusal(damaged))


def drop(part: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.pop(part)


def put(part: str, name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """Set a value of a part, or of the parameters of a part."""
    return lambda values: values[part].get("params", values[part]).update({name: value})


def top(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.update(changes)


CONFIG, PIXELS, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
VALUES = [
    (CONFIG, top(model_type="llava"), "model_type 'llava'; that of a Janus checkpoint is 'janus' .* 'multi_modality'"),
    (CONFIG, drop("model_type"), "model_type None; that of a Janus checkpoint is 'janus'"),
    (CONFIG, drop("language_config"), "has no language_config .* DeepSeek-VL and JanusFlow"),
    (CONFIG, drop("gen_vision_config"), "has no gen_vision_config .* DeepSeek-VL and JanusFlow"),
    (CONFIG, top(aligner_config={"cls": "MlpProjector"}), "has no aligner_config with the values"),
    (CONFIG, top(gen_head_config=3), "has no gen_head_config with the values"),
    (CONFIG, put("language_config", "model_type", "qwen2"), "language_config has model_type 'qwen2'"),
    (CONFIG, put("language_config", "hidden_size", 64), "n_embed is 32, but language_config.hidden_size is 64"),
    (CONFIG, put("language_config", "hidden_size", "32"), "n_embed is 32, but language_config.hidden_size is '32'"),
    (CONFIG, put("language_config", "num_attention_heads", 5), "no Janus can be built from it"),
    (
        CONFIG,
        put("language_config", "num_hidden_layers", 3),
        "9 missing tensors, such as language_model.model.layers.2",
    ),
    (CONFIG, put("language_config", "num_hidden_layers", 1), "9 unexpected tensors, such as language_model.model.la"),
    (CONFIG, put("language_config", "intermediate_size", 50), r"has shape \(48, 32\), but config.json .* \(50, 32\)"),
    (CONFIG, put("language_config", "vocab_size", 5), r"has shape \(288, 32\), but config.json .* make it \(5, 32\)"),
    (CONFIG, put("language_config", "tie_word_embeddings", True), "lm_head.weight is not the embedding, but .* true"),
    (
        CONFIG,
        put("language_config", "rope_scaling", {"rope_type": "dynamic", "factor": 2.0}),
        "rope_type 'dynamic' makes a sample depend on the longest",
    ),
    (
        CONFIG,
        put("vision_config", "image_size", None),
        "vision_config has image_size None; expected a positive integer",
    ),
    (CONFIG, put("vision_config", "image_size", 32), r"pos_embed has shape \(1, 16, 32\), but .* \(1, 64, 32\)"),
    (CONFIG, put("vision_config", "select_layer", -2), "vision_config has select_layer -2; that of Janus .* is -1"),
    (CONFIG, put("aligner_config", "projector_type", "linear"), "projector_type 'linear'; .* is 'mlp_gelu'"),
    (CONFIG, put("aligner_config", "depth", 3), "2 missing tensors, such as aligner.layers.4"),
    (
        CONFIG,
        top(gen_head_config={"cls": "linear", "params": {}}),
        "gen_head_config has cls 'linear'; .* 'vision_head'",
    ),
    (CONFIG, put("gen_head_config", "image_token_size", 41), "image_token_size is 41, but gen_vision_config"),
    (CONFIG, put("gen_head_config", "image_token_embed", 16), "image_token_embed is 16, but language_config"),
    (PIXELS, top(image_size=32), "the processor's image height is 32, but the vision tower's image_size is 16"),
    (PIXELS, top(image_size="16"), "has image_size '16'; expected a positive integer"),
    (PIXELS, drop("image_mean"), "preprocessor_config.json has no image_mean"),
    (PIXELS, top(image_std=[0.5]), "image_std is .*; expected three numbers"),
    (PIXELS, top(image_mean=0.5), "no image processor can be made of it"),
    (PROCESSOR, top(num_image_tokens=9), "num_image_tokens is 9, but the vision tower's patches is 16"),
    (PROCESSOR, top(sft_format="plain"), "has sft_format 'plain'; that of Janus and Janus-Pro is 'deepseek'"),
    ("tokenizer_config.json", drop("bos_token"), "tokenizer_config.json has bos_token None, which is no token"),
    ("tokenizer_config.json", top(eos_token="</s>"), "has eos_token '</s>', which is no token of tokenizer.json"),
]


@pytest.mark.parametrize(("file", "change", "message"), VALUES, ids=[message[:40] for _, _, message in VALUES])
def test_configs_of_other_models_and_wrong_values(
    damaged: Path, file: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(damaged, file, change)
    assert re.search(message, refusal(damaged))


@pytest.mark.parametrize("token", ["<begin_of_image>", "<end_of_image>", PAD])
def test_a_tokenizer_without_a_token_that_is_needed(damaged: Path, token: str) -> None:
    text = (damaged / "tokenizer.json").read_text(encoding="utf-8")
    (damaged / "tokenizer.json").write_text(text.replace(token, "<other>"), encoding="utf-8")
    assert f"tokenizer.json has no token {token!r}" in refusal(damaged)


def test_a_tokenizer_with_more_ids_than_the_model(damaged: Path) -> None:
    def shorten(tensors: dict[str, Tensor]) -> None:
        for name in ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"):
            tensors[name] = tensors[name][:285].clone()

    edit_tensors(damaged, shorten)
    edit(damaged, CONFIG, put("language_config", "vocab_size", 285))
    assert "the tokenizer has 286 ids, the language model 285" in refusal(damaged)


def test_missing_files(one: Path, tmp_path: Path) -> None:
    for name in (CONFIG, PIXELS, PROCESSOR, "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        folder = Path(shutil.copytree(one, tmp_path / name))
        (folder / name).unlink()
        expected = f"{name} is missing" if name.endswith("json") else "holds no weights; expected one of: model.safe"
        assert expected in refusal(folder)
        if name.endswith("json"):
            (folder / name).write_text("{")
            assert f"{name} is broken" in refusal(folder)


@pytest.mark.parametrize("layout", ["safetensors", "bin", "sharded bin"])
def test_broken_weights(tmp_path: Path, layout: str) -> None:
    save(tmp_path, layout=layout)
    file = next(tmp_path.glob("*.safetensors" if layout == "safetensors" else "*.bin"))
    file.write_bytes(file.read_bytes()[:-1000])
    assert f"{file.name} cannot be read" in refusal(tmp_path)
    assert f"{file.name} cannot be read" in refusal(tmp_path, meta=True)
    if layout == "sharded bin":
        file.unlink()
        assert f"the shard {file.name} is missing" in refusal(tmp_path)


def test_pickles_of_code_are_not_run(pro: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pro, tmp_path / "code"))
    torch.save({"w": Path}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin cannot be read" in refusal(folder)


def test_tensors_of_older_files_that_nobody_reads(damaged: Path) -> None:
    name = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_tensors(damaged, lambda tensors: tensors.update({name: torch.ones(8)}))
    load(damaged, do_normalize=False)
