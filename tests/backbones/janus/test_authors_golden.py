"""Janus in its authors' format equals the authors' own code, on tiny checkpoints that lie beside the repository."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from unirl.backbones import plain_text
from unirl.backbones.janus import Janus
from unirl.backbones.janus.authors_format import source_name
from unirl.types import AnswerSampling, Images, ImageSampling

PILLOW = int(PIL.__version__.partition(".")[0])

REFERENCE = Path(__file__).parents[3].parent / "shared/reference/janus-authors"
"""Two checkpoints, `one` in the ways of Janus-1.3B and `pro` in those of Janus-Pro, each with golden tensors."""
GREEDY, GUIDED = AnswerSampling(max_tokens=12), ImageSampling(guidance=4.0, temperature=0.0)
pytestmark = [
    pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the golden tensors of Janus's authors are not at {REFERENCE}"),
    pytest.mark.filterwarnings("ignore:.* has do_normalize false"),
]


def load(checkpoint: str, **options: Any) -> Janus:
    backbone = Janus(checkpoint, **options)
    backbone.build()
    return backbone.eval()


class Case:
    """A checkpoint as its files say, with golden tensors and prompts."""

    def __init__(self, name: str) -> None:
        self.folder = REFERENCE / name
        self.golden = load_file(self.folder / "golden.safetensors")
        self.meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        self.prompts = [prompt["text"] for prompt in self.meta["prompts"]]
        self.questions = [asked["question"] for asked in self.meta["asked"]]
        self.checkpoint = str(self.folder / "checkpoint")
        self.backbone = load(self.checkpoint, do_normalize=name == "pro", uint8_pixels=True)

    def ids(self, name: str) -> list[int]:
        return self.golden[name].tolist()

    def asked(self) -> Images:
        """The images that the questions are about."""
        files = [Image.open(self.folder / f"{name}.png") for name in ("wide", "tall", "square")]
        return self.backbone.encode(self.backbone.preprocess(files))


@pytest.fixture(scope="module", params=["one", "pro"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def close(got: Tensor, expected: Tensor, within: float) -> None:
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


def test_every_tensor_has_its_place(case: Case) -> None:
    expected = json.loads((case.folder / "key_map.json").read_text())
    names = {name: source for source, where in expected.items() for name in where["to"]}
    assert {name: source_name(name) for name in case.backbone.transformer.janus.state_dict()} == names


def test_config(case: Case) -> None:
    config = case.backbone.transformer.janus.config.to_dict()
    for name, expected in case.meta["janus_config"].items():
        got = config[name]
        if isinstance(expected, dict):
            got = {key: list(got[key]) if isinstance(got[key], tuple) else got[key] for key in expected}
        assert got == expected, name


def test_prompts(case: Case) -> None:
    """Control tokens in a prompt are text here, and control tokens to the authors."""
    start = [case.backbone.image_start_id]
    for kind, texts in (("draw", case.prompts), ("edge", [prompt["text"] for prompt in case.meta["edge_prompts"]])):
        for i, ids in enumerate(case.backbone.prompt_ids(texts)):
            if plain_text(texts[i], case.backbone.chat.tokenizer) != texts[i]:
                assert len(ids) > len(case.ids(f"{kind}.{i}.prompt_ids"))
                continue
            assert ids + start == case.ids(f"{kind}.{i}.prompt_ids")
            assert case.backbone.unconditional_ids(ids) + start == case.ids(f"{kind}.{i}.uncond_ids")


def test_questions_and_given_answers(case: Case) -> None:
    backbone = case.backbone
    image = [backbone.chat.image_token_id] * case.meta["sizes"]["codes_per_picture"]
    for i, ids in enumerate(backbone.question_ids(case.questions)):
        assert [*backbone.image_context_ids, *image, *ids] == case.ids(f"ask.{i}.input_ids")
    answer = backbone.tokenize_answers(["red"]).ids[0].tolist()
    assert answer == case.ids("answered.input_ids_without_picture_expansion")[-len(answer) :]


@pytest.mark.skipif(
    PILLOW < 13, reason="the golden images were resized by Pillow 13; earlier ones round some levels otherwise"
)
def test_images_of_any_size(case: Case) -> None:
    files = sorted(case.folder.glob("*.png"))
    pixels = case.backbone.preprocess([Image.open(file) for file in files])
    for file, given in zip(files, (pixels - case.backbone.tower_mean) / case.backbone.tower_std, strict=True):
        close(given, case.golden[f"pixel_values.{file.stem}"], 1e-6)
    assert len(files) == 5


@pytest.mark.skipif(
    PILLOW < 13, reason="the golden images were resized by Pillow 13; earlier ones round some levels otherwise"
)
@torch.no_grad()
def test_answers(case: Case) -> None:
    backbone, images = case.backbone, case.asked()
    answers = backbone.sample_answers(images, case.questions, GREEDY)
    scored = backbone.answer_log_probs(images, case.questions, answers)
    embeds = backbone.embed_images(images)
    for i, ids in enumerate(answers.ids):
        close(embeds[i], case.golden[f"ask.{i}.image_embeds"], 1e-5)
        assert ids.tolist() == case.ids(f"ask.{i}.greedy")
        close(scored[i], case.golden[f"ask.{i}.greedy_log_probs"], 2e-4)


@pytest.mark.skipif(
    PILLOW < 13, reason="the golden images were resized by Pillow 13; earlier ones round some levels otherwise"
)
@torch.no_grad()
def test_answers_about_normalized_images() -> None:
    case = Case("one")
    with pytest.warns(UserWarning, match="do_normalize false, but images that are asked about are normalized"):
        backbone = load(case.checkpoint)
    images = case.asked()
    answers = backbone.sample_answers(images, case.questions, GREEDY)
    embeds = backbone.embed_images(images)
    for i, ids in enumerate(answers.ids):
        close(embeds[i], case.golden[f"normalized.{i}.image_embeds"], 1e-5)
        assert ids.tolist() == case.ids(f"normalized.{i}.greedy")


@torch.no_grad()
def test_generated_codes_and_their_likelihood(case: Case) -> None:
    backbone, golden = case.backbone, case.golden
    images = backbone.sample_images(case.prompts, GUIDED)
    assert torch.equal(images.codes, golden["draw.greedy_codes"].long())
    forced = replace(images, codes=golden["draw.forced_codes"].long())
    for guidance, name in ((4.0, "forced_log_probs"), (0.0, "forced_log_probs_unguided")):
        log_probs, _ = backbone.image_log_probs(case.prompts, forced, ImageSampling(guidance=guidance))
        close(log_probs, torch.stack([golden[f"draw.{i}.{name}"] for i in range(3)]), 2e-4)


@torch.no_grad()
def test_decoded_images(case: Case) -> None:
    for name in ("forced", "greedy"):
        codes = case.golden[f"draw.{name}_codes"].long()
        close(case.backbone.transformer.decode_codes(codes), case.golden[f"vq.{name}.decoded"], 1e-5)
        pixels = case.backbone.decode(Images(codes)) * 255
        close(pixels.permute(0, 2, 3, 1), case.golden[f"vq.{name}.uint8"].float(), 1e-4)


@torch.no_grad()
def test_its_own_image_is_seen_through_8_bits(case: Case) -> None:
    backbone, golden = case.backbone, case.golden
    images = Images(golden["draw.greedy_codes"].long())
    image = replace(images, pixels=backbone.decode(images))[:1]
    assert image.pixels is not None
    given = (image.pixels[0] - backbone.tower_mean) / backbone.tower_std
    close(given, golden["own.pixel_values"], 1e-6)
    likely = golden["own.logits"].log_softmax(-1)
    token = int(likely.argmax())
    answers = backbone.sample_answers(image, case.questions[:1], AnswerSampling(max_tokens=1))
    assert answers.ids.tolist() == [[token]]
    close(answers.log_probs[0], likely[token, None], 2e-4)


@torch.no_grad()
def test_what_is_saved_is_transformers_own_and_equal(case: Case, tmp_path: Path) -> None:
    case.backbone.save_pretrained(tmp_path)
    saved = load(str(tmp_path), uint8_pixels=True)
    state = case.backbone.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in saved.state_dict().items())
    assert torch.equal(saved.sample_images(case.prompts, GUIDED).codes, case.golden["draw.greedy_codes"].long())
    answers = saved.sample_answers(case.asked(), case.questions, GREEDY)
    assert answers.ids.tolist() == [case.ids(f"ask.{i}.greedy") for i in range(3)]
    assert saved.chat.processor.chat_template == case.backbone.chat.processor.chat_template
