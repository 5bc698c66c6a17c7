"""Answering questions about images."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.showo import Showo
from unirl.backbones.showo.backbone import QUESTION
from unirl.backbones.showo.modeling import understanding_mask
from unirl.types import AnswerSampling, Images

QUESTIONS = ["what is the main item in this image ?", "color ?", "how many circle are there ?", "?"]
GREEDY, SAMPLED = AnswerSampling(7), AnswerSampling(7, 1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


@pytest.fixture(scope="module")
def images(golden: dict[str, Tensor]) -> Images:
    return Images(golden["codes"][[0, 1, 2, 0]])


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, AnswerSampling(1)], ids=["greedy", "sampled", "one token"])
@torch.no_grad()
def test_scored_answer_log_probs_are_those_of_sampling(
    backbone: Showo, images: Images, sampling: AnswerSampling
) -> None:
    answers = backbone.sample_answers(images, QUESTIONS, sampling, seeded())
    assert answers.log_probs is not None
    close(backbone.answer_log_probs(images, QUESTIONS, answers), answers.log_probs)


@torch.no_grad()
def test_log_probs_do_not_depend_on_the_batch(backbone: Showo, images: Images) -> None:
    together = backbone.sample_answers(images, QUESTIONS, GREEDY)
    for row, question in enumerate(QUESTIONS):
        alone = backbone.sample_answers(images[row : row + 1], [question], GREEDY)
        length = int(alone.mask.sum())
        assert torch.equal(alone.ids[0, :length], together.ids[row][together.mask[row]])
        assert alone.text[0] == together.text[row]
        close(alone.log_probs[0, :length], together.log_probs[row, :length])


@torch.no_grad()
def test_given_answers_of_different_lengths_do_not_matter_to_each_other(backbone: Showo, images: Images) -> None:
    answers = backbone.tokenize_answers(["two", "the red circle is left", "a", "blue square"])
    together = backbone.answer_log_probs(images, QUESTIONS, answers)
    assert (together[~answers.mask] == 0).all()
    assert (together[answers.mask] < 0).all()
    for row in range(4):
        one = slice(row, row + 1)
        alone = backbone.answer_log_probs(images[one], QUESTIONS[one], answers[one])
        close(alone[0], together[row])


@torch.no_grad()
def test_cached_text_equals_the_full_sequence(backbone: Showo, images: Images) -> None:
    answers = backbone.tokenize_answers(["two red", "a", "circle", "blue square"])
    fast = backbone.answer_log_probs(images, QUESTIONS, answers)
    config, end, model = backbone.config, backbone.tokenizer.eos_token_id, backbone.transformer
    for row, question in enumerate(QUESTIONS):
        text = backbone.tokenizer(QUESTION.format(question=question), add_special_tokens=False)["input_ids"]
        output = answers.ids[row][answers.mask[row]].tolist()
        codes = (images.codes[row] + config.code_start).tolist()
        front = [config.special("mmu"), config.special("soi"), *codes, config.special("eoi"), end, *text]
        ids = torch.tensor([front + output])
        mask = understanding_mask(ids, config.special("eoi"))
        hidden = model(model.embed(ids), mask, torch.arange(ids.shape[1])[None])
        expected = model.text_logits(hidden[0, len(front) - 1 : -1]).log_softmax(-1)
        close(fast[row, : len(output)], expected[torch.arange(len(output)), torch.tensor(output)])


@torch.no_grad()
def test_several_questions_about_each_image(backbone: Showo, images: Images) -> None:
    two = images[:2]
    together = backbone.sample_answers(two, QUESTIONS, GREEDY)
    scores = backbone.answer_log_probs(two, QUESTIONS, together)
    for row in range(4):
        image, one = two[row // 2 : row // 2 + 1], slice(row, row + 1)
        assert backbone.sample_answers(image, QUESTIONS[one], GREEDY).text == together[one].text
        close(backbone.answer_log_probs(image, QUESTIONS[one], together[one])[0], scores[row])
    with pytest.raises(ValueError, match="3 questions about 2 images"):
        backbone.sample_answers(two, QUESTIONS[:3], GREEDY)


def test_seeds(backbone: Showo, images: Images) -> None:
    before = torch.get_rng_state()
    first, repeated, other = (backbone.sample_answers(images, QUESTIONS, SAMPLED, seeded(s)).ids for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, repeated)
    assert first.tolist() != other.tolist()


def test_given_answers_end_and_read_back(backbone: Showo) -> None:
    texts = ["two", " the red circle ", "a"]
    answers = backbone.tokenize_answers(texts)
    assert answers.mask.sum(1).tolist() == [2, 4, 2]
    for row, keep, text in zip(answers.ids, answers.mask, texts, strict=True):
        assert row[keep][-1] == backbone.tokenizer.eos_token_id
        assert backbone.tokenizer.decode(row[keep][:-1]).strip() == text.strip()


@torch.no_grad()
def test_answers_stop_at_their_end(load: Callable[..., Showo], images: Images) -> None:
    backbone = load()
    backbone.transformer.phi.lm_head.bias[backbone.tokenizer.eos_token_id] += 1e4
    answers = backbone.sample_answers(images, QUESTIONS, GREEDY)
    assert answers.ids.tolist() == [[0]] * 4
    assert answers.mask.all()
    assert answers.text == [""] * 4


def test_gradient_reaches_every_weight(backbone: Showo, images: Images) -> None:
    answers = backbone.tokenize_answers(["two red", "a", "circle", "blue square"])
    log_probs = backbone.answer_log_probs(images, QUESTIONS, answers)
    weights = dict(backbone.transformer.named_parameters())
    for name, slope in zip(weights, torch.autograd.grad(log_probs.sum(), list(weights.values())), strict=True):
        assert torch.isfinite(slope).all(), name
        assert slope.abs().max() > 0, name


def test_soft_codes_mix_embeddings(backbone: Showo, images: Images) -> None:
    """One-hot codes answer as integer codes do, and the gradient is the derivative along a mixture."""
    answers = backbone.tokenize_answers(["two", "red", "a", "circle"])
    blend = F.one_hot(images.codes.flip(1), 64).float()

    def log_probs(mixture: Tensor) -> Tensor:
        return backbone.answer_log_probs(dataclasses.replace(images, soft=mixture), QUESTIONS, answers)

    one_hot = F.one_hot(images.codes, 64).float().requires_grad_()
    close(log_probs(one_hot), backbone.answer_log_probs(images, QUESTIONS, answers))
    (slope,) = torch.autograd.grad(log_probs(one_hot).sum(), one_hot)
    step = 1e-2
    with torch.no_grad():
        direction = blend - one_hot
        rise = (log_probs(one_hot + step * direction).sum() - log_probs(one_hot - step * direction).sum()) / (2 * step)
    torch.testing.assert_close(rise, (slope * direction).sum(), rtol=0.02, atol=0.02)
