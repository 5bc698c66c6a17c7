"""Answers about pixels: those of transformers, and scored as they were sampled."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.backbones.janus.tiny import save
from torch import Tensor

from unirl.backbones.janus import Janus
from unirl.errors import UserError
from unirl.types import AnswerSampling, ImageSampling

QUESTIONS = ["what color is it ?", "how many", "what"]
GREEDY = AnswerSampling(max_tokens=5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=seeded(9))


def messages(question: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]


def processed(backbone: Janus, pixels: Tensor, questions: list[str]) -> dict[str, Tensor]:
    texts = [backbone.processor.apply_chat_template(messages(q), add_generation_prompt=True) for q in questions]
    given = [[np.asarray(p.permute(1, 2, 0))] for p in pixels]
    inputs = backbone.processor(text=texts, images=given, padding=True, return_tensors="pt", do_rescale=False)
    return dict(inputs)


@pytest.mark.parametrize(
    "changes",
    [{}, {"seed": 1, "tied": True, "system": True}, {"seed": 2, "kv_heads": 1, "size": 48}],
    ids=["plain", "tied-with-system-prompt", "larger"],
)
def test_greedy_answers_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path, **changes))).eval()
    pixels = random_images(3, backbone.image_size)
    inputs = processed(backbone, pixels, QUESTIONS)
    expected = backbone.transformer.janus.generate(**inputs, max_new_tokens=5, do_sample=False)
    expected = expected[:, inputs["input_ids"].shape[1] :]
    answers = backbone.sample_answers(backbone.encode(pixels), QUESTIONS, GREEDY)
    width = min(expected.shape[1], answers.ids.shape[1])
    assert torch.equal(answers.ids[:, :width][answers.mask[:, :width]], expected[:, :width][answers.mask[:, :width]])
    assert answers.mask.sum() > 5


def test_tokens_are_the_processors(tmp_path: Path) -> None:
    for system in (False, True):
        backbone = Janus.from_pretrained(str(save(tmp_path / str(system), system=system))).eval()
        inputs = processed(backbone, random_images(3), QUESTIONS)
        before, rows = backbone.image_context_ids, backbone.question_ids(QUESTIONS)
        image = [backbone.chat.image_token_id] * 16
        for row, ids, mask in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
            assert [*before, *image, *row] == ids[mask.bool()].tolist()


def test_scored_answer_log_probs_are_those_of_sampling(backbone: Janus) -> None:
    images = backbone.encode(random_images(3))
    answers = backbone.sample_answers(images, QUESTIONS, AnswerSampling(5, 1.0), seeded())
    log_probs = backbone.answer_log_probs(images, QUESTIONS, answers)
    torch.testing.assert_close(log_probs, answers.log_probs, atol=1e-4, rtol=0)


def test_log_probs_do_not_depend_on_the_batch(backbone: Janus) -> None:
    images = backbone.encode(random_images(3))
    answers = backbone.sample_answers(images, QUESTIONS, GREEDY)
    together = backbone.answer_log_probs(images, QUESTIONS, answers)
    for row in range(3):
        part = slice(row, row + 1)
        alone = backbone.answer_log_probs(images[part], QUESTIONS[part], answers[part])
        torch.testing.assert_close(alone, together[part], atol=1e-4, rtol=0)


def test_several_questions_about_one_image_embed_it_once(backbone: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    images, seen = backbone.encode(random_images(2)), []
    embed = backbone.transformer.embed_pixels
    monkeypatch.setattr(backbone.transformer, "embed_pixels", lambda pixels: seen.append(len(pixels)) or embed(pixels))
    rows, forward = [], backbone.transformer.forward
    monkeypatch.setattr(backbone.transformer, "forward", lambda *a: rows.append(a[0].shape[:2]) or forward(*a))
    twice = backbone.sample_answers(images, ["what", "how many", "what", "how many"], GREEDY)
    assert seen == [2]
    assert rows[0][0] == 2  # the image is read once, however many ask about it
    assert rows[0][1] > 16
    assert all(batch == 4 and length < 16 for batch, length in rows[1:])
    reloaded = backbone.sample_answers(images[torch.tensor([0, 0, 1, 1])], ["what", "how many"] * 2, GREEDY)
    assert twice.text == reloaded.text
    with pytest.raises(ValueError, match="3 questions about 2 images"):
        backbone.sample_answers(images, QUESTIONS, GREEDY)


def test_generated_images_are_understood_through_their_pixels(backbone: Janus) -> None:
    prompts = ["a photo", "two circle", "red"]
    images = backbone.sample_images(prompts, ImageSampling(), seeded())
    decoded = backbone.encode(backbone.decode(images))
    answers = backbone.tokenize_answers(["red", "two circle", "blue"])
    by_codes = backbone.answer_log_probs(images, QUESTIONS, answers)
    torch.testing.assert_close(by_codes, backbone.answer_log_probs(decoded, QUESTIONS, answers))
    assert not torch.allclose(
        by_codes, backbone.answer_log_probs(backbone.encode(random_images(3)), QUESTIONS, answers)
    )


def test_the_answer_loss_reaches_generation_through_soft_codes_only(backbone: Janus) -> None:
    prompts, sampling = ["a photo", "two circle", "red"], ImageSampling()
    images = backbone.sample_images(prompts, sampling, seeded())
    answers = backbone.tokenize_answers(["red", "two circle", "blue"])
    head = backbone.transformer.base_model.generation_head.vision_head.weight
    tower = backbone.transformer.base_model.vision_model.embeddings.patch_embedding.weight
    for relaxed in (False, True):
        backbone.zero_grad()
        given = backbone.straight_through(prompts, images, sampling, 1.0, None, seeded()) if relaxed else images
        backbone.answer_log_probs(given, QUESTIONS, answers).sum().backward()
        assert (head.grad is not None and head.grad.abs().sum().item() > 0) is relaxed
        assert tower.grad is not None
        assert tower.grad.abs().sum() > 0
    assert all(p.grad is None for p in backbone.transformer.base_model.vqmodel.parameters())


def test_every_end_of_text_ends_an_answer(tmp_path: Path) -> None:
    folder = save(tmp_path)
    plain = Janus.from_pretrained(str(folder)).eval()
    pixels = random_images(3)
    output = plain.sample_answers(plain.encode(pixels), QUESTIONS, GREEDY)
    other = int(output.ids[0, 1])  # the second token of the first answer
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps(config | {"eos_token_id": [plain.eos_token_ids[0], other]})
    )
    backbone = Janus.from_pretrained(str(folder)).eval()
    answers = backbone.sample_answers(backbone.encode(pixels), QUESTIONS, GREEDY)
    assert answers.mask[0].sum() == 2
    inputs = processed(backbone, pixels, QUESTIONS)
    expected = backbone.transformer.janus.generate(**inputs, max_new_tokens=5, do_sample=False)
    expected = expected[:, inputs["input_ids"].shape[1] :]
    width = min(expected.shape[1], answers.ids.shape[1])
    assert torch.equal(answers.ids[:, :width][answers.mask[:, :width]], expected[:, :width][answers.mask[:, :width]])


def test_image_tokens_in_user_text_are_text(backbone: Janus) -> None:
    """The processor would put an image in their place."""
    mark, tokens = backbone.processor.image_token, backbone.processor.tokenizer
    number = tokens.convert_tokens_to_ids(mark)
    for method, text in ((backbone.prompt_ids, "two {} circle"), (backbone.question_ids, "what {} color")):
        (row,) = method([text.format(mark)])
        assert number not in row
        assert len(row) > len(method([text.format("")])[0])


def test_a_question_before_the_image_is_refused(tmp_path: Path) -> None:
    template = (save(tmp_path) / "chat_template.jinja").read_text()
    text, image = "{%else%}{{c['text']}}{%endif%}", "{%if c['type']=='image'%}<image_placeholder>\n"
    assert image + text in template
    turned = "{%for c in m['content']|reverse%}"
    (tmp_path / "chat_template.jinja").write_text(template.replace("{%for c in m['content']%}", turned))
    backbone = Janus.from_pretrained(str(tmp_path)).eval()
    for question in QUESTIONS[:2]:  # one at a time, so that there is nothing to compare it with
        with pytest.raises(UserError, match="puts the question before the image"):
            backbone.question_ids([question])


def test_given_answers_end_once(backbone: Janus) -> None:
    answers = backbone.tokenize_answers(["red", "two circle"])
    ends = (answers.ids == backbone.eos_token_ids[0]) & answers.mask
    assert ends.sum(1).tolist() == [1, 1]
    assert [backbone.decode_text(ids[m]) for ids, m in zip(answers.ids, answers.mask, strict=True)] == list(
        answers.text
    )


@pytest.mark.parametrize("ends", [[1, 8], [8, 1]])
def test_given_answers_end_where_the_template_ends_them(tmp_path: Path, ends: list[int]) -> None:
    ending = "{%endfor%}{%if m['role']!='user'%} <eos>{%endif%}{%if not loop.last"
    template = (save(tmp_path) / "chat_template.jinja").read_text().replace("{%endfor%}{%if not loop.last", ending)
    (tmp_path / "chat_template.jinja").write_text(template)
    config = json.loads((tmp_path / "generation_config.json").read_text()) | {"eos_token_id": ends}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    backbone = Janus.from_pretrained(str(tmp_path))
    answers = backbone.tokenize_answers(["red", "two circle"])
    words = backbone.processor.tokenizer.convert_ids_to_tokens
    rows = [words(ids[mask].tolist()) for ids, mask in zip(answers.ids, answers.mask, strict=True)]
    assert rows == [["red", "<eos>"], ["two", "circle", "<eos>"]]


def test_additional_ends_of_text_are_not_in_the_answers(tmp_path: Path) -> None:
    first = Janus.from_pretrained(str(save(tmp_path)))
    given = first.encode(random_images(3))
    output = first.sample_answers(given, QUESTIONS[:3], AnswerSampling(5))
    words = [text.split() for text in output.text]
    last = next(row[1] for row in words if len(row) > 2)  # a word of somebody's answer becomes an end
    ends = [first.eos_token_ids[0], first.processor.tokenizer.convert_tokens_to_ids(last)]
    config = json.loads((tmp_path / "generation_config.json").read_text()) | {"eos_token_id": ends}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    reloaded = Janus.from_pretrained(str(tmp_path)).sample_answers(given, QUESTIONS[:3], AnswerSampling(5))
    cut = [row[: row.index(last)] if last in row else row for row in words]
    assert [text.split() for text in reloaded.text] == cut


def test_images_of_another_size_are_refused(backbone: Janus) -> None:
    with pytest.raises(UserError, match=r"\(3, 64, 64\); this checkpoint reads \(3, 32, 32\)"):
        backbone.encode(random_images(1, 64))
