"""Images code by code: the codes of transformers, and scored log-probabilities equal those of sampling."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones.mixins import SamplingStep
from unirl.sampling import sample_codes, sample_uniforms
from unirl.types import Images, ImageSampling
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save

PROMPTS = ["a photo of three blue squares", "two circles", "two circles", "red"]
PLAIN = ImageSampling(guidance=0.0)
GUIDED = ImageSampling(guidance=2.0, temperature=0.8)
GREEDY = ImageSampling(guidance=2.0, temperature=0.0)
CODES = 48


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, expected: Tensor | None, within: float = 1e-4) -> None:
    assert expected is not None
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


def generated(backbone: Emu3, prompts: list[str], guidance_scale: float) -> tuple[Tensor, Tensor]:
    """Greedy tokens and pixels of transformers, with its guidance and its documentation's constraint."""
    model, processor, marks = backbone.transformer.model, backbone.processor, backbone.processor.tokenizer
    given = {"return_for_image_generation": True, "padding": True, "return_tensors": "pt"} | backbone.chat.size
    inputs = processor(text=prompts, **given)
    (height, width), *_ = inputs.pop("image_sizes")
    negative = processor(text=[backbone.negative_prompt] * len(prompts), **given)

    def allowed(_: int, ids: Tensor) -> list[int]:
        start = (ids == marks.image_wrapper_token_id).nonzero()[0, 0]
        at, length = int(len(ids) - start), (width + 1) * height
        if at % (width + 1) == 0:
            return marks.encode("<|extra_200|>")
        ends = [marks.eof_token_id, marks.eoi_token_id, marks.eos_token_id]
        return ends[at - length - 1 : at - length] if at > length else model.vocabulary_mapping.image_tokens

    out = model.generate(
        **inputs,
        max_new_tokens=(width + 1) * height + 3,
        prefix_allowed_tokens_fn=allowed,
        do_sample=False,
        guidance_scale=guidance_scale,
        negative_prompt_ids=negative.input_ids,
        negative_prompt_attention_mask=negative.attention_mask,
    )[:, inputs.input_ids.shape[1] :]
    return out, model.decode_image_tokens(image_tokens=out, height=height, width=width)


@pytest.mark.parametrize(
    "changes",
    [{}, {"seed": 1, "tied": True}, {"seed": 2, "kv_heads": 4, "codes": 23}, {"seed": 3, "heads": 8, "kv_heads": 1}],
    ids=["plain", "tied", "no-groups", "one-group"],
)
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_greedy_images_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any], guidance: float) -> None:
    backbone = Emu3.from_pretrained(str(save(tmp_path, **changes)), ratio="4:3", image_area=48 * 64)
    for prompts in (PROMPTS, PROMPTS[:1]):
        images = backbone.sample_images(prompts, ImageSampling(guidance=guidance, temperature=0.0))
        tokens, pixels = generated(backbone, prompts, 1 + guidance)
        expected = tokens[:, :-3].unflatten(1, (backbone.transformer.size[0], -1))
        assert torch.equal(images.codes + backbone.transformer.columns.start, expected[:, :, :-1].flatten(1))
        close(backbone.decode(images), (pixels * 0.5 + 0.5).clamp(0, 1), 1e-5)
        assert len(images.codes.unique()) > 8


@torch.no_grad()
def test_the_step_of_a_cuda_graph_samples_the_same_lines(backbone: Emu3) -> None:
    """Its parts are replayed on a GPU: `tests/backbones/janus/test_cuda_graph.py` replays them on the CPU."""
    expected = backbone.sample_images(PROMPTS, GUIDED, seeded())
    prefix = backbone.prompt_prefix(PROMPTS, GUIDED.guidance)
    step, start = (
        SamplingStep(backbone, prefix, GUIDED, static_shapes=True),
        backbone.embed_token(backbone.image_start_id, len(prefix)),
    )
    sample = sample_codes(step, start, CODES, sample_uniforms(CODES, len(PROMPTS), seeded(), start.device))
    assert torch.equal(sample.codes, expected.codes)
    close(sample.log_probs, expected.log_probs)


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, GREEDY], ids=["plain", "guided", "greedy"])
@pytest.mark.parametrize("training", [False, True])
def test_scored_log_probs_are_those_of_sampling(backbone: Emu3, sampling: ImageSampling, training: bool) -> None:
    """In training, too: the public configs ask for dropout."""
    assert backbone.transformer.model.config.text_config.attention_dropout > 0
    backbone.train(training)
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    assert images.codes.shape == (4, CODES)
    log_probs, scored = backbone.image_log_probs(PROMPTS, images, sampling)
    assert scored.all()
    close(log_probs, images.log_probs)


@torch.no_grad()
def test_scores_are_those_of_the_plain_forward(backbone: Emu3) -> None:
    """transformers' own pass over prompt, codes and ends of lines; other tokens are left out."""
    images = backbone.sample_images(PROMPTS[:1], PLAIN, seeded())
    (prompt,), model = backbone.prompt_ids(PROMPTS[:1]), backbone.transformer.model
    prompt = [*prompt, backbone.image_start_id]
    rows = model.vocabulary_mapping.convert_img2bpe(images.codes.view(backbone.transformer.size))
    ids = torch.cat((torch.tensor([prompt]), rows.flatten()[None]), 1)
    logits = model(ids).logits[:, len(prompt) - 1 : -1].unflatten(1, rows.shape)[:, :, :-1].flatten(1, 2)
    log_probs = logits[..., model.vocabulary_mapping.image_tokens].log_softmax(-1)
    close(images.log_probs, log_probs.gather(-1, images.codes[..., None])[..., 0])


def test_gradient_checkpointing_has_the_same_gradients(checkpoint: Path) -> None:
    found = []
    for gradient_checkpointing in (False, True):
        backbone = Emu3.from_pretrained(
            str(checkpoint), image_area=32 * 32, gradient_checkpointing=gradient_checkpointing
        )
        images = backbone.sample_images(PROMPTS, GUIDED, seeded())
        relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, None, seeded(1))
        answers = backbone.tokenize_answers(["red"] * 4)
        log_probs, _ = backbone.image_log_probs(PROMPTS, images, GUIDED)
        (log_probs.sum() + backbone.answer_log_probs(relaxed, ["how many"] * 4, answers).sum()).backward()
        found.append({n: p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
@torch.no_grad()
def test_log_probs_do_not_depend_on_the_batch(backbone: Emu3, sampling: ImageSampling) -> None:
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    assert images.log_probs is not None
    for row, prompt in enumerate(PROMPTS):
        log_probs, _ = backbone.image_log_probs([prompt], images[row : row + 1], sampling)
        close(log_probs[0], images.log_probs[row])


def test_prompts_and_the_negative_prompt_are_prefilled_once(backbone: Emu3, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = backbone.transformer.forward
    monkeypatch.setattr(backbone.transformer, "forward", lambda *a: seen.append(len(a[0])) or forward(*a))
    prefix = backbone.prompt_prefix([p for p in ("one", "two", "three") for _ in range(5)], 2.0)
    assert seen == [3 + 1]
    assert len(prefix) == 30


def test_only_the_columns_of_codes_are_computed(backbone: Emu3, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the whole head")

    monkeypatch.setattr(backbone.transformer.model.lm_head, "forward", refuse)
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    backbone.image_log_probs(PROMPTS, images, GUIDED)
    backbone.straight_through(PROMPTS, images, GUIDED)


def test_the_negative_prompt_matters_under_guidance_only(checkpoint: Path) -> None:
    one, other = (
        Emu3.from_pretrained(str(checkpoint), image_area=32 * 32, negative_prompt=text) for text in ("blurry", "grey")
    )
    for sampling, same in ((PLAIN, True), (GREEDY, False)):
        sampled = [emu3.sample_images(PROMPTS, sampling, seeded()).codes for emu3 in (one, other)]
        assert torch.equal(*sampled) is same


def test_the_generator_determines_the_images(backbone: Emu3) -> None:
    one, same, other = (backbone.sample_images(PROMPTS, PLAIN, seeded(s)).codes for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[1], one[2])  # two images of one prompt


@torch.no_grad()
def test_code_frequencies_are_their_probabilities(backbone: Emu3) -> None:
    images = backbone.sample_images(["red"] * 2000, GUIDED, seeded())
    every = torch.arange(40).view(40, 1).expand(-1, CODES)
    probable = backbone.image_log_probs(["red"] * 40, Images(every), GUIDED)[0][:, 0].exp()
    close(probable.sum(), torch.tensor(1.0))
    seen = images.codes[:, 0].bincount(minlength=40) / 2000
    assert (seen - probable).abs().max() < 4 * (0.25 / 2000) ** 0.5


def test_gradient_of_image_log_probs_reaches_the_generation_parameters(backbone: Emu3) -> None:
    backbone.zero_grad()
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    backbone.image_log_probs(PROMPTS, images, GUIDED)[0].sum().backward()
    trained = {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("text_model.layers.0" in name for name in trained)
    assert not any("vqmodel" in name for name in trained)
    head = backbone.transformer.model.lm_head.weight.grad
    assert head is not None
    assert head[: backbone.transformer.columns.start].abs().sum() == 0
    assert (head[backbone.transformer.columns].abs().sum(1) > 0).all()


def test_soft_codes_are_the_sampled_ones_and_carry_gradient_to_the_last_steps(backbone: Emu3) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, 3, seeded(1))
    assert relaxed.soft is not None
    close(relaxed.soft.detach(), F.one_hot(images.codes, 40).float(), 1e-6)
    weighed = relaxed.soft * torch.randn(40, generator=seeded(2))
    head = backbone.transformer.model.lm_head.weight
    (early,) = torch.autograd.grad(weighed[:, : CODES - 3].sum(), head, retain_graph=True)
    (late,) = torch.autograd.grad(weighed[:, CODES - 3 :].sum(), head)
    assert early.abs().sum() == 0
    assert late.abs().sum() > 0


def test_soft_codes_decode_to_the_same_images(backbone: Emu3) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, None, seeded(1))
    pixels = backbone.decode(relaxed)
    assert pixels.shape == (4, 3, 48, 64)
    close(pixels.detach(), backbone.decode(images), 1e-5)
    assert 0 <= pixels.min() < pixels.max() <= 1
    (slope,) = torch.autograd.grad(pixels.sum(), relaxed.soft)  # type: ignore[arg-type]
    assert slope.abs().sum() > 0
