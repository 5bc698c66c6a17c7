"""Texts that are longer than the model reads or writes are counted and said; answers that are cut off are logged."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unirl import PromptsDataModule, Question, sample, validate
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.doctor.text_lengths import check_lengths
from unirl.rewards import Keyword, PretrainedReward
from unirl.rewards.clip import CLIP as Clip
from unirl.testing import TinyBackbone
from unirl.training.lengths import LengthWarnings, clipped_answers, find_long_texts, longer_texts
from unirl.types import Answers, AnswerSampling, Example, ImageSampling
from unirl_shapes.prompts import ShapesPrompts

JANUS = "unirl_shapes:checkpoints/janus"
LONG = " ".join(["a red circle and"] * 8)


@pytest.fixture(scope="module")
def showo() -> Showo:
    backbone = Showo("unirl_shapes:checkpoints/showo")
    backbone.build(meta=True)  # no weights are needed
    return backbone


@pytest.fixture(scope="module")
def janus() -> Janus:
    backbone = Janus(JANUS)
    backbone.build(meta=True)
    return backbone


def problems(backbone: Any, *examples: Example, max_tokens: int = 6) -> dict[str, str]:
    return {kind: text for kind, text, _ in find_long_texts(backbone, examples, max_tokens, "training prompts")}


def test_the_limit_is_met_exactly() -> None:
    """Each length around each limit, and bytes that are more than characters."""
    texts = ["", "a", "ä b", "a b c", "日 本 語 で す", *(" ".join("x" * n) for n in range(2, 12))]

    def count(texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    for limit in range(-2, 16):
        expected = {text: n for text, n in zip(texts, count(texts), strict=True) if n > limit}
        assert longer_texts(texts, count, limit) == expected, limit
    assert longer_texts([], count, 0) == {}


def test_short_texts_need_no_tokenizer() -> None:
    counted: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        counted.extend(texts)
        return [len(text) for text in texts]

    longer_texts([f"prompt {i}" for i in range(1000)], count, 100)
    assert len(counted) == 1


def test_prompts_that_show_o_cuts_are_counted(showo: Showo) -> None:
    limit = showo.max_prompt_length
    lengths = showo.prompt_lengths([" ".join(["red"] * n) for n in (limit - 2, limit - 1)])
    assert lengths == [limit, limit + 1]
    prompts = [f"{LONG} {color}" for color in ("red", "blue")]
    found = problems(showo, *(Example(prompt, "what is it ?", "red") for prompt in (*prompts, "a red circle")))
    assert found.keys() == {"prompts"}
    text = found["prompts"]
    assert text.startswith("2 of 3 training prompts are longer than the 24 tokens that Showo reads, such as 'a red ")
    assert "(35 tokens): what comes after is cut off" in text


def test_what_goes_beyond_the_context_is_counted(janus: Janus, showo: Showo) -> None:
    for backbone in (janus, showo):
        name, reads = type(backbone).__name__, backbone.max_question_length
        words = reads - 6 - backbone.question_lengths(["red"])[0] + 1
        fits, question = (" ".join(["red"] * n) for n in (words, words + 1))
        assert not problems(backbone, Example("a cup", fits, "red"))
        found = problems(backbone, Example("a cup", "what is it ?", "red"), Example("a cup", question, "red"))
        text = f"1 of 2 questions of the training prompts are, with an answer, longer than the {reads} tokens that"
        assert found["questions"].startswith(f"{text} {name} reads after an image"), found
        # The answer that is taught, and each choice, is read with its question.
        answer = " ".join(["red"] * reads)
        for example in (
            Example("a cup", "what is it ?", answer),
            Example("a cup", questions=(Question("is it ?", "yes", ("yes", answer)),)),
        ):
            assert "questions" in problems(backbone, example)
    limit = janus.max_prompt_length
    template = janus.prompt_lengths(["red"])[0] - 1
    assert not problems(janus, Example(" ".join(["red"] * (limit - template)), "what is it ?", "red"))
    found = problems(janus, Example(" ".join(["red"] * (limit - template + 1)), "what is it ?", "red"))
    assert f"longer than the {limit} tokens that Janus reads" in found["prompts"]
    assert "positions that the model was made for" in found["prompts"]


def test_right_answers_that_max_tokens_cuts_are_counted(showo: Showo) -> None:
    answers = [Example("a cup", "what is it ?", " ".join(["red"] * n)) for n in (1, 5, 6, 9)]
    (found,) = problems(showo, *answers).values()
    assert found.startswith("2 of 4 right answers of the training prompts need up to 10 tokens, end of text included")
    assert "model.rollout.answer_sampling.max_tokens is 6" in found
    choices = ("red", "red red red red red red red")
    questions = [
        Question("what is it ?", "red"),
        Question("which ?", choices[1], choices),
        Question("and ?", choices[1]),
    ]
    (found,) = problems(showo, Example("a cup", questions=tuple(questions))).values()
    assert found.startswith("1 of 2 right answers")  # those of later questions with choices are never sampled


def test_a_placeholder_tokenizer_is_not_counted_with() -> None:
    backbone = Janus("deepseek-ai/Janus-1.3B")
    backbone.build(meta=True)
    (finding,) = check_lengths(SimpleNamespace(backbone=backbone), None)
    assert "not counted: the tokenizer of deepseek-ai/Janus-1.3B is not on this machine" in finding.text


class Drawn(ShapesPrompts):
    """Now and then a prompt that is too long, behind those that are counted at the start."""

    def sample(self, seed: int, index: int) -> Example:
        example = super().sample(seed, index)
        return replace(example, prompt=f"{LONG} {example.prompt}") if index >= 1000 and index % 2 else example


def test_drawn_prompts_are_told_of_once(showo: Showo) -> None:
    source, lengths = Drawn(), LengthWarnings(showo)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lengths.warn_of_run(PromptsDataModule(source, num_val_prompts=4), 6)
        assert not caught
        for step in range(4):
            lengths.watch([source.sample(0, 1000 + 2 * step + i) for i in range(2)], 6)
        (warning,) = caught
    text = "1 of 2 training prompts of this batch are longer than the 24 tokens that Showo reads"
    assert str(warning.message).startswith(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listed = LengthWarnings(showo)
        listed.warn_of_run(None, 6)  # a data module of another kind
        with pytest.raises(UserWarning, match="of 256 right answers of the drawn training prompts"):
            listed.warn_of_run(PromptsDataModule(ShapesPrompts(), num_val_prompts=0), 2)


class ShortSighted(PretrainedReward):
    """Reads five words."""

    @property
    def max_prompt_length(self) -> int:
        return 5

    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(prompt.split()) for prompt in prompts]

    def load(self) -> None:
        pass

    def measure(self, prompts: Sequence[str], pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean((1, 2, 3))


def test_prompts_longer_than_a_reward_reads_are_counted() -> None:
    examples = [Example("one two three four five six", "how many ?", "one"), Example("one", "how many ?", "one")]
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 5 tokens that shortsighted reads"):
        validate(TinyBackbone(), examples, [ShortSighted("a", 0.0, 1.0)])
    for built in (False, True):  # the limit is that of the tokenizer and the model, which are loaded when a run starts
        clip = Clip("unirl_shapes:checkpoints/clip")
        if built:
            clip.attach(None)
        assert clip.max_prompt_length == (24 if built else None)
    added = clip.prompt_lengths(["red"])[0] - 1
    prompts = [" ".join(["red"] * (n - added)) for n in (24, 25, 40)]
    assert longer_texts(prompts, clip.prompt_lengths, 24).keys() == set(prompts[1:])


def test_python_functions_warn_of_long_texts() -> None:
    backbone = TinyBackbone()
    examples = [Example("one cup", "how many ?", "one of the many cups")]
    with pytest.warns(UserWarning, match="1 of 1 right answers of the prompts need up to 21 tokens.* max_tokens is 16"):
        sample(backbone, examples)
    with pytest.warns(UserWarning, match="1 of 1 right answers of the prompts need up to 21 tokens"):
        metrics = validate(backbone, examples, [Keyword()])
    assert set(metrics) == {"completions/clipped_ratio", "diversity/codes"}


def test_clipped_answers_are_those_without_an_end() -> None:
    ids = torch.tensor([[5, 0, 0], [5, 6, 0], [5, 6, 7], [5, 6, 9], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]) > 0
    answers = Answers(ids, mask, [""] * 5)
    assert clipped_answers(answers, 3, [0]).tolist() == [False, False, True, True, False]
    assert clipped_answers(answers, 3, [0, 9]).tolist() == [False, False, True, False, False]
    assert not clipped_answers(answers, 4, [0]).any()  # all ended before
    backbone = TinyBackbone()
    backbone.build()
    images = backbone.sample_images(["a cup"] * 64, ImageSampling(), torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    sampled = backbone.sample_answers(images, ["what ?"] * 64, AnswerSampling(16, 1.0), rng)
    clipped = clipped_answers(sampled, 16, backbone.eos_token_ids)
    assert clipped.tolist() == [0 not in row for row in sampled.ids.tolist()]
    assert 0 < clipped.sum() < 64
