"""The vision-language judge against a plain forward pass, on a tiny Llava with random weights."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from unirl import Answers, Example, Images, UserError
from unirl_preference.vlm import VLMJudge

PROMPTS = ["a photo of a ring", "a cross", "a photo of two red circles and three blue squares above a cross"]
QUESTION = "does this image show {prompt} ? answer yes or no ."


def scored(reward: VLMJudge, pixels: Tensor, prompts: list[str] = PROMPTS) -> Tensor:
    ids = torch.zeros(len(prompts), 1, dtype=torch.long)
    examples = [Example(prompt, "q", "a", "c") for prompt in prompts]
    return reward.score(examples, Images(ids, pixels), Answers(ids, ids.bool(), [""] * len(prompts)))


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))


def by_hand(folder: Path, pixels: Tensor) -> Tensor:
    """One at a time, without padding: probabilities of "Yes" and "yes", and of "No" and "no", after the chat."""
    model, processor = (
        LlavaForConditionalGeneration.from_pretrained(folder).eval(),
        AutoProcessor.from_pretrained(folder),
    )
    vocabulary, shares = processor.tokenizer.get_vocab(), []
    for prompt, image in zip(PROMPTS, pixels, strict=True):
        text = f"user : <image> does this image show {prompt} ? answer yes or no . assistant :"
        inputs = processor(text=text, images=image, do_rescale=False, return_tensors="pt")
        with torch.no_grad():
            probs = model(**inputs).logits[0, -1].softmax(-1)
        yes, no = (sum(probs[vocabulary[word]] for word in pair) for pair in (("Yes", "yes"), ("No", "no")))
        shares.append(yes / (yes + no))
    return torch.stack(shares)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_score_is_the_probability_of_yes(batch_size: int, vlm_folder: Path, pixels: Tensor) -> None:
    expected = by_hand(vlm_folder, pixels)
    assert expected.std() > 0.01
    reward = VLMJudge(str(vlm_folder), question=QUESTION, batch_size=batch_size)
    torch.testing.assert_close(scored(reward, pixels), expected, atol=1e-5, rtol=1e-5)


def test_words_of_both_answers_are_options(vlm_folder: Path, pixels: Tensor) -> None:
    reward = VLMJudge(str(vlm_folder), question=QUESTION)
    swapped = VLMJudge(str(vlm_folder), question=QUESTION, yes_words=["No", "no"], no_words=["Yes", "yes"])
    torch.testing.assert_close(scored(swapped, pixels), 1 - scored(reward, pixels))


def test_long_prompts_are_truncated(vlm_folder: Path, pixels: Tensor) -> None:
    reward = VLMJudge(str(vlm_folder), question=QUESTION, max_prompt_tokens=3)
    long = ["a photo of " + "a ring and " * 500] * 3
    torch.testing.assert_close(scored(reward, pixels, long), scored(reward, pixels, ["a photo of"] * 3))


def test_accepted_samples_and_name(vlm_folder: Path) -> None:
    reward = VLMJudge(str(vlm_folder))
    accepted = reward.accepts([], torch.tensor([0.4, 0.6]))
    assert accepted is not None
    assert accepted.tolist() == [False, True]
    assert reward.name == "vlm_judge"
    assert VLMJudge("x/y", accept_threshold=None).accepts([], torch.tensor([0.6])) is None


def remove_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def remove_everything(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (remove_template, "no chat template"),
        (remove_everything, "holds no image-text-to-text model that can be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    ],
)
def test_other_checkpoints_are_refused_in_one_line(corrupt, message: str, vlm_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(vlm_folder, tmp_path / "corrupted")
    corrupt(folder)
    with pytest.raises(UserError, match=rf"^vlm_judge: .*corrupted'.*{message}") as error:
        VLMJudge(str(folder)).attach(None)
    assert "\n" not in str(error.value)


def test_a_clip_is_refused(clip_folder: Path) -> None:
    with pytest.raises(UserError, match="holds no image-text-to-text model"):
        VLMJudge(str(clip_folder)).attach(None)


def test_invalid_settings_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(UserError, match=r"the question 'Is it nice\?' does not contain"):
        VLMJudge("x/y", question="Is it nice?")
    with pytest.raises(UserError, match="max_prompt_tokens 0; it must be 1 or more"):
        VLMJudge("x/y", max_prompt_tokens=0)
    with pytest.raises(UserError, match=r"none of no_words \['maybe'\] is a single token"):
        VLMJudge(str(vlm_folder), no_words=["maybe"]).attach(None)
    with pytest.raises(UserError, match="yes_words and no_words share the token 'yes'"):
        VLMJudge(str(vlm_folder), no_words=["yes", "no"]).attach(None)


def test_it_is_built_outside_of_lightnings_device(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):  # as after a plain install
        if name.startswith("transformers.") and "is_accelerate_available" in vars(module):
            monkeypatch.setattr(module, "is_accelerate_available", lambda *_: False)
    with torch.device("meta"):
        model = VLMJudge(str(vlm_folder), question=QUESTION).loaded.model
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}
