"""The vision-language judge against a plain forward pass, on a tiny Llava with random weights."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from unirl.errors import UserError
from unirl.types import Answers, Example, Images
from unirl_preference.vlm import VLMJudge

PROMPTS = ["a photo of a ring", "a cross", "a photo of two red circles and three blue squares above a cross"]
ASK = "does this image show {prompt} ? answer yes or no ."


def scored(reward: VLMJudge, pixels: Tensor, prompts: list[str] = PROMPTS) -> Tensor:
    nothing = torch.zeros(len(prompts), 1, dtype=torch.long)
    examples = [Example(prompt, "q", "a", "c") for prompt in prompts]
    return reward.score(examples, Images(nothing, pixels), Answers(nothing, nothing.bool(), [""] * len(prompts)))


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))


def by_hand(folder: Path, pixels: Tensor) -> Tensor:
    """One at a time, without padding: probabilities of "Yes" and "yes", and of "No" and "no", after the chat."""
    model, processor = (
        LlavaForConditionalGeneration.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    words, shares = processor.tokenizer.get_vocab(), []
    for prompt, picture in zip(PROMPTS, pixels, strict=True):
        text = f"user : <image> does this image show {prompt} ? answer yes or no . assistant :"
        inputs = processor(text=text, images=picture, do_rescale=False, return_tensors="pt")
        with torch.no_grad():
            chances = model(**inputs).logits[0, -1].softmax(-1)
        yes, no = (sum(chances[words[word]] for word in pair) for pair in (("Yes", "yes"), ("No", "no")))
        shares.append(yes / (yes + no))
    return torch.stack(shares)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_the_score_is_the_share_of_yes(batch: int, vlm_folder: Path, pixels: Tensor) -> None:
    expected = by_hand(vlm_folder, pixels)
    assert expected.std() > 0.01
    reward = VLMJudge(str(vlm_folder), question=ASK, batch=batch)
    torch.testing.assert_close(scored(reward, pixels), expected, atol=1e-5, rtol=1e-5)


def test_yes_and_no_are_options(vlm_folder: Path, pixels: Tensor) -> None:
    reward = VLMJudge(str(vlm_folder), question=ASK)
    turned = VLMJudge(str(vlm_folder), question=ASK, yes_words=["No", "no"], no_words=["Yes", "yes"])
    torch.testing.assert_close(scored(turned, pixels), 1 - scored(reward, pixels))


def test_long_prompts_are_cut(vlm_folder: Path, pixels: Tensor) -> None:
    endless = VLMJudge(str(vlm_folder), question=ASK, max_prompt_tokens=3)
    long = ["a photo of " + "a ring and " * 500] * 3
    torch.testing.assert_close(scored(endless, pixels, long), scored(endless, pixels, ["a photo of"] * 3))


def test_verdicts_and_name(vlm_folder: Path) -> None:
    reward = VLMJudge(str(vlm_folder))
    verdict = reward.accepts([], torch.tensor([0.4, 0.6]))
    assert verdict is not None
    assert verdict.tolist() == [False, True]
    assert reward.name == "vlm_judge"
    assert VLMJudge("x/y", accept_threshold=None).accepts([], torch.tensor([0.6])) is None


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def another_model(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_template, "no chat template"),
        (another_model, "holds no image-text-to-text model that can be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    ],
)
def test_what_is_no_such_model_is_refused_in_one_line(spoil, message: str, vlm_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vlm_folder, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(UserError, match=rf"^vlm_judge: .*spoilt'.*{message}") as told:
        VLMJudge(str(folder)).attach(None)
    assert "\n" not in str(told.value)


def test_a_clip_is_no_such_model(clip_folder: Path) -> None:
    with pytest.raises(UserError, match="holds no image-text-to-text model"):
        VLMJudge(str(clip_folder)).attach(None)


def test_settings_that_make_no_sense_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(UserError, match=r"the question 'Is it nice\?' does not say what to look for"):
        VLMJudge("x/y", question="Is it nice?")
    with pytest.raises(UserError, match="max_prompt_tokens 0; it must be 1 or more"):
        VLMJudge("x/y", max_prompt_tokens=0)
    with pytest.raises(UserError, match=r"none of no_words \['maybe'\] is one token"):
        VLMJudge(str(vlm_folder), no_words=["maybe"]).attach(None)
    with pytest.raises(UserError, match="yes_words and no_words share the token 'yes'"):
        VLMJudge(str(vlm_folder), no_words=["yes", "no"]).attach(None)
