"""Answering: transformers' own answers, scores that are those of answering, and gradient that reaches codes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unirl.errors import UserError
from unirl.types import AnswerSampling, ImageSampling
from unirl_emu3.backbone import Emu3

QUESTIONS = ["how many circles?", "what?", "what color is the square"]
GREEDY = AnswerSampling(6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int = 48, width: int = 64) -> Tensor:
    """Random images as 8-bit pixels, which is what processors take."""
    return torch.randint(256, (count, 3, height, width), generator=seeded()).float() / 255


def processed(backbone: Emu3, pixels: Tensor, questions: list[str]) -> Any:
    """What transformers' processor makes of images and questions."""
    system = {"role": "system", "content": [{"type": "text", "text": backbone.chat.system}]}
    texts = [
        backbone.processor.apply_chat_template(
            [system, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q}]}],
            add_generation_prompt=True,
        )
        for q in questions
    ]
    given = [(p * 255).round().byte().permute(1, 2, 0).numpy() for p in pixels]
    return backbone.processor(text=texts, images=given, padding=True, return_tensors="pt")


def test_greedy_answers_are_those_of_transformers(backbone: Emu3) -> None:
    pixels = random_images(3)
    inputs = processed(backbone, pixels, QUESTIONS)
    expected = backbone.transformer.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    expected = expected[:, inputs["input_ids"].shape[1] :]
    answers = backbone.sample_answers(backbone.encode(pixels), QUESTIONS, GREEDY)
    width = min(expected.shape[1], answers.ids.shape[1])
    assert torch.equal(answers.ids[:, :width][answers.mask[:, :width]], expected[:, :width][answers.mask[:, :width]])
    assert answers.mask.sum() > 6


def test_tokens_are_the_processors(backbone: Emu3) -> None:
    inputs = processed(backbone, random_images(3), QUESTIONS)
    before, rows = backbone.image_context_ids, backbone.question_ids(QUESTIONS)
    image = [backbone.processor.image_token_id] * (6 * 9)
    for row, ids, mask in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
        assert [*before, *image, *row] == ids[mask.bool()].tolist()


def test_codes_of_given_images_are_those_of_transformers(backbone: Emu3) -> None:
    inputs = processed(backbone, random_images(3), QUESTIONS)
    tokens = backbone.transformer.model.model.get_image_tokens(inputs["pixel_values"], inputs["image_sizes"])
    expected = tokens.view(3, 6, 9)[:, :, :-1].flatten(1) - backbone.transformer.columns.start
    assert torch.equal(backbone.encode(random_images(3)).codes, expected)
    assert len(expected.unique()) > 1


def test_scored_answer_log_probs_are_those_of_sampling(backbone: Emu3) -> None:
    images = backbone.encode(random_images(3))
    answers = backbone.sample_answers(images, QUESTIONS, AnswerSampling(5, 1.0), seeded())
    log_probs = backbone.answer_log_probs(images, QUESTIONS, answers)
    torch.testing.assert_close(log_probs, answers.log_probs, atol=1e-4, rtol=0)


def test_log_probs_do_not_depend_on_the_batch(backbone: Emu3) -> None:
    images = backbone.encode(random_images(3))
    answers = backbone.sample_answers(images, QUESTIONS, GREEDY)
    together = backbone.answer_log_probs(images, QUESTIONS, answers)
    for row in range(3):
        part = slice(row, row + 1)
        alone = backbone.answer_log_probs(images[part], QUESTIONS[part], answers[part])
        torch.testing.assert_close(alone, together[part], atol=1e-4, rtol=0)


def test_several_questions_about_one_image_embed_it_once(backbone: Emu3, monkeypatch: pytest.MonkeyPatch) -> None:
    images, seen = backbone.encode(random_images(2)), []
    embed = backbone.transformer.embed_codes
    monkeypatch.setattr(backbone.transformer, "embed_codes", lambda codes: seen.append(len(codes)) or embed(codes))
    twice = backbone.sample_answers(images, ["what", "how many", "what", "how many"], GREEDY)
    assert seen == [2]
    again = backbone.sample_answers(images[torch.tensor([0, 0, 1, 1])], ["what", "how many"] * 2, GREEDY)
    assert twice.text == again.text
    with pytest.raises(ValueError, match="3 questions about 2 images"):
        backbone.sample_answers(images, QUESTIONS, GREEDY)


def test_answers_depend_on_the_image(backbone: Emu3) -> None:
    images = backbone.sample_images(["a photo", "two circles", "red"], ImageSampling(), seeded())
    others = backbone.sample_images(["a photo", "two circles", "red"], ImageSampling(), seeded(1))
    answers = backbone.tokenize_answers(["red", "two circles", "blue"])
    one, other = (backbone.answer_log_probs(i, QUESTIONS, answers) for i in (images, others))
    assert not torch.allclose(one, other)


def test_the_answer_loss_reaches_generation_through_soft_codes_only(backbone: Emu3) -> None:
    prompts, sampling = ["a photo", "two circles", "red"], ImageSampling()
    images = backbone.sample_images(prompts, sampling, seeded())
    answers = backbone.tokenize_answers(["red", "two circles", "blue"])
    by_codes = backbone.answer_log_probs(images, QUESTIONS, answers)
    relaxed = backbone.straight_through(prompts, images, sampling, 1.0, None, seeded())
    assert relaxed.soft is not None
    by_soft = backbone.answer_log_probs(relaxed, QUESTIONS, answers)
    torch.testing.assert_close(by_soft, by_codes, atol=1e-4, rtol=0)
    (slope,) = torch.autograd.grad(by_soft.sum(), relaxed.soft, retain_graph=True)
    assert slope.abs().sum() > 0
    backbone.zero_grad()
    by_soft.sum().backward()
    assert all(p.grad is None for p in backbone.transformer.vq.parameters())


def test_given_answers_end_once(backbone: Emu3) -> None:
    answers = backbone.tokenize_answers(["red", "two circles"])
    ends = (answers.ids == backbone.eos_token_ids[0]) & answers.mask
    assert ends.sum(1).tolist() == [1, 1]
    assert [backbone.decode_text(ids[m]) for ids, m in zip(answers.ids, answers.mask, strict=True)] == list(
        answers.text
    )


def test_images_of_another_size_are_refused(backbone: Emu3) -> None:
    with pytest.raises(UserError, match=r"\(3, 64, 64\); with this image_area it reads \(3, 48, 64\)"):
        backbone.encode(random_images(1, 64, 64))
