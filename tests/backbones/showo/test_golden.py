"""The public Show-o code's own numbers, on its own small random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from unirl.backbones.checkpoints import load_exactly
from unirl.backbones.showo import Magvit, MagvitConfig, Showo
from unirl.backbones.showo.modeling import generation_mask, understanding_mask
from unirl.sampling.kv_cache import extend, pad_right
from unirl.types import AnswerSampling, Images, ImageSampling

ROOT = Path(__file__).parents[3]
QUESTIONS = ["what is the main item in this image ?", "how many circle are there ?"]
TEXT, FIRST_TEXT_ROW = "USER: \n{} ASSISTANT:", 19
Golden = dict[str, Tensor]


def close(got: Tensor, expected: Tensor, within: float) -> None:
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


def plain(backbone: Showo, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of a whole sequence, nothing cached."""
    model = backbone.transformer
    return model.text_logits(model(model.embed(ids), mask, torch.arange(ids.shape[1])[None]))


@pytest.fixture(scope="module")
def masks(backbone: Showo, golden: Golden) -> Golden:
    config = backbone.config
    return {
        "t2i": generation_mask(golden["t2i_input_ids"], config.special("pad"), config.special("soi")),
        "mmu": understanding_mask(golden["mmu_input_ids"], config.special("eoi")),
    }


def test_special_ids(backbone: Showo, meta: dict[str, Any]) -> None:
    names = {name.strip("<|>"): number for name, number in meta["special"].items()}
    end = {names.pop("sot"), names.pop("eot")}
    assert end == {backbone.tokenizer.eos_token_id}
    assert {name: backbone.config.special(name) for name in names} == names
    assert backbone.config.mask_token_id == meta["mask_id"]


@pytest.mark.parametrize("kind", ["t2i", "mmu"])
def test_masks(kind: str, masks: Golden, golden: Golden) -> None:
    assert torch.equal(masks[kind], golden[f"{kind}_mask"].bool())


@torch.no_grad()
def test_logits_under_the_full_masks(backbone: Showo, masks: Golden, golden: Golden) -> None:
    close(plain(backbone, golden["mmu_input_ids"], masks["mmu"]), golden["mmu_logits"], 1e-4)
    start = backbone.config.code_start
    sampled = plain(backbone, golden["t2i_input_ids"], masks["t2i"])[:, -17:-1, start : start + 64]
    close(sampled, golden["t2i_image_logits"], 1e-4)


@torch.no_grad()
def test_image_logits_over_a_cached_prompt(backbone: Showo, golden: Golden, meta: dict[str, Any]) -> None:
    model, end = backbone.transformer, backbone.tokenizer.eos_token_id
    texts = backbone.tokenizer(meta["prompts"], add_special_tokens=False)["input_ids"]
    known = golden["image_ids"] != meta["mask_id"]
    hidden = model.image_hidden(model.prompt_prefix(texts, end), golden["codes"], known)
    close(model.code_logits(hidden), golden["t2i_image_logits"], 1e-4)


@torch.no_grad()
def test_text_logits_over_a_cached_image(backbone: Showo, golden: Golden) -> None:
    model = backbone.transformer
    rows = [[i for i in row if i != 48] for row in golden["mmu_input_ids"][:, FIRST_TEXT_ROW:].tolist()]
    ids, real = pad_right(rows, 0)
    hidden = extend(model, model.image_prefix(model.embed_codes(golden["codes"][:2])), model.embed(ids), real)
    close(model.text_logits(hidden)[real], golden["mmu_logits"][:, FIRST_TEXT_ROW:][real], 1e-4)


@torch.no_grad()
def test_losses(backbone: Showo, masks: Golden, golden: Golden, meta: dict[str, Any]) -> None:
    sampled = plain(backbone, golden["t2i_input_ids"], masks["t2i"])
    image = slice(meta["max_text_len"] + 2, None)  # the public code leaves the text out
    loss = F.cross_entropy(sampled[:, image].flatten(0, 1), golden["t2i_labels"][:, image].flatten())
    close(loss, golden["t2i_loss"].squeeze(), 1e-5)
    output = plain(backbone, golden["mmu_input_ids"], masks["mmu"])
    loss = F.cross_entropy(output[:, :-1].flatten(0, 1), golden["mmu_labels"][:, 1:].flatten())
    close(loss, golden["mmu_loss"].squeeze(), 1e-5)


@torch.no_grad()
def test_guided_first_step(backbone: Showo, golden: Golden, meta: dict[str, Any]) -> None:
    """Every code's guided log-probability at every place, all places masked."""
    every = torch.arange(64).view(1, 64, 1).expand(3, -1, 16).flatten(0, 1)
    first = Images(every, memory={"steps": torch.ones_like(every)})
    prompts = [prompt for prompt in meta["prompts"] for _ in range(64)]
    log_probs, scored = backbone.image_log_probs(prompts, first, ImageSampling(steps=1, guidance=5.0))
    assert scored.all()
    close(log_probs.view(3, 64, 16).mT, golden["cfg5_first_step_logits"].log_softmax(-1), 1e-4)


@torch.no_grad()
def test_greedy_answers(backbone: Showo, golden: Golden) -> None:
    for image, question in enumerate(QUESTIONS):
        text = backbone.tokenizer(TEXT.format(question), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[54, 49, *(golden["codes"][image] + 58).tolist(), 50, 0, *text]])
        for expected in golden["mmu_greedy"][image]:
            output = plain(backbone, ids, understanding_mask(ids, 50))[:, -1].argmax(-1, keepdim=True)
            assert output.item() == expected
            ids = torch.cat((ids, output), dim=1)
    answers = backbone.sample_answers(Images(golden["codes"][:2]), QUESTIONS, AnswerSampling(max_tokens=8))
    assert torch.equal(answers.ids, golden["mmu_greedy"])


@torch.no_grad()
def test_answer_log_probs(backbone: Showo, golden: Golden) -> None:
    answers = backbone.tokenize_answers(["two"])
    got = backbone.answer_log_probs(Images(golden["codes"][1:2]), QUESTIONS[1:], answers)
    expected = golden["mmu_logits"][1].log_softmax(-1)
    assert golden["mmu_input_ids"][1, 28:30].tolist() == answers.ids[0].tolist() == [10, 0]
    close(got, torch.stack((expected[27, 10], expected[28, 0]))[None], 1e-4)


MAGVITS = {
    "small": ROOT / "tests/fixtures/showo_golden/magvitv2_small",
    "large": ROOT.parent / "shared/reference/show-o/magvitv2",
}


@torch.no_grad()
@pytest.mark.parametrize("name", MAGVITS)
def test_image_tokenizer(name: str) -> None:
    stem = MAGVITS[name]
    if not stem.with_suffix(".safetensors").exists():
        pytest.skip(f"the 12 MB golden image tokenizer is not at {stem}.safetensors")
    size = json.loads(Path(f"{stem}_meta.json").read_text())
    widths, blocks = [tuple(size[f"{half}_ch_mult"]) for half in ("encoder", "decoder")], tuple(size["num_res_blocks"])
    magvit = Magvit(MagvitConfig(size["ch"], *widths, blocks, blocks, size["z_channels"], size["groups"]))
    load_exactly(magvit, load_file(stem.with_suffix(".safetensors")), stem, ignore=("quantize.",))
    golden = load_file(f"{stem}_golden.safetensors")
    codes = magvit.encode(golden["pixels"])
    assert torch.equal(codes.flatten(1), golden["codes"])
    close(magvit.encoder(golden["pixels"]), golden["pre_quant"], 1e-4)
    close(magvit.decode(codes), golden["decoded"], 1e-4)
    close(magvit.decode_soft(F.one_hot(codes, 8192).float()), golden["decoded"], 1e-4)
