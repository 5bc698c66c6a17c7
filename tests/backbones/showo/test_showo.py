"""Generation, its scores and straight-through codes."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unirl.backbones import Backbone
from unirl.backbones.showo import Showo
from unirl.backbones.showo.modeling import generation_mask, prompt_row
from unirl.errors import UserError
from unirl.sampling.kv_cache import pad_left
from unirl.sampling.masked import cosine_schedule
from unirl.types import Images, ImageSampling

PROMPTS = ["a photo of three blue square", "", "two circle", "two circle"]
SAMPLING = ImageSampling(steps=5, guidance=0.0)
GUIDED = ImageSampling(steps=5, guidance=2.0, temperature=0.8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


def trained(backbone: Showo) -> dict[str, Tensor]:
    return {name: p for name, p in backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("sampling", [SAMPLING, GUIDED], ids=["plain", "guided"])
def test_scored_log_probs_are_those_of_sampling(backbone: Showo, sampling: ImageSampling) -> None:
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    log_probs, scored = backbone.image_log_probs(PROMPTS, images, sampling)
    assert scored.all()
    assert images.log_probs is not None
    close(log_probs, images.log_probs)


@pytest.mark.parametrize("scored", [1, 3, 5, 9])
@torch.no_grad()
def test_some_steps_scored(backbone: Showo, scored: int) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    log_probs, mask = backbone.image_log_probs(PROMPTS, images, GUIDED, scored, seeded(scored))
    steps = images.memory["steps"]
    chosen = steps[mask].unique()
    assert len(chosen) == min(scored, 5)
    assert torch.equal(mask, torch.isin(steps, chosen))
    close(log_probs, images.log_probs * mask)


@pytest.mark.parametrize("sampling", [SAMPLING, GUIDED], ids=["plain", "guided"])
@torch.no_grad()
def test_likelihood_is_that_of_a_sampler_in_random_order(backbone: Showo, sampling: ImageSampling) -> None:
    """Random masks estimate the same mean as scoring the decisions of random orders."""
    images = backbone.sample_images(PROMPTS[:1], sampling, seeded())
    many, prompts = images[torch.zeros(1500, dtype=torch.long)], PROMPTS[:1] * 1500
    fixed = torch.repeat_interleave(torch.arange(1, 6), images.memory["steps"][0].bincount(minlength=6)[1:])
    orders = torch.rand(1500, 16, generator=seeded(1)).argsort(1)
    in_order = dataclasses.replace(many, memory={"steps": fixed[orders]})
    by_order = -backbone.image_log_probs(prompts, in_order, sampling)[0].mean(1)
    log_probs, weights = backbone.image_log_likelihood(prompts, many, sampling, 4, seeded(2))
    assert log_probs.shape == weights.shape == (1500, 4 * 16)
    by_mask = -(log_probs * weights).sum(1)
    error = (by_order.var() / 1500 + by_mask.var() / 1500).sqrt()
    assert (by_order.mean() - by_mask.mean()).abs() < 3 * error
    assert error < 0.02 * by_order.mean()


def test_likelihood_where_every_decision_is_scored_at_once(backbone: Showo) -> None:
    """The default of the contract, right for a model without masks."""
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    assert images.log_probs is not None
    log_probs, weights = Backbone.image_log_likelihood(backbone, PROMPTS, images, GUIDED)
    close(log_probs, images.log_probs)
    close(weights, torch.full((4, 16), 1 / 16))


def test_every_code_is_fixed_once(backbone: Showo) -> None:
    images = backbone.sample_images(PROMPTS, SAMPLING, seeded())
    left = torch.tensor([16, *cosine_schedule(16, 5)])
    for row in images.memory["steps"]:
        assert torch.equal(row.bincount(minlength=6)[1:], left[:-1] - left[1:])
    assert images.codes.min() >= 0
    assert images.codes.max() < 64


@pytest.mark.parametrize("sampling", [SAMPLING, GUIDED], ids=["plain", "guided"])
@torch.no_grad()
def test_log_probs_do_not_depend_on_the_batch(backbone: Showo, sampling: ImageSampling) -> None:
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    for row, prompt in enumerate(PROMPTS):
        alone = images[row : row + 1]
        log_probs, _ = backbone.image_log_probs([prompt], alone, sampling)
        assert images.log_probs is not None
        close(log_probs[0], images.log_probs[row])


@torch.no_grad()
def test_a_cached_prompt_equals_the_full_sequence(backbone: Showo) -> None:
    images = backbone.sample_images(PROMPTS, SAMPLING, seeded())
    model, config, end = backbone.transformer, backbone.config, backbone.tokenizer.eos_token_id
    known = images.memory["steps"] < 3
    texts = backbone.tokenizer(PROMPTS, add_special_tokens=False)["input_ids"]
    fast = model.image_hidden(model.prompt_prefix(texts, end), images.codes, known)
    rows = [prompt_row(text, config.special("t2i"), end, 12) for text in texts]
    text = pad_left([[config.special("pad")] * 13, *rows], config.special("pad"))[0][1:]
    sampled = torch.where(known, images.codes + config.code_start, config.mask_token_id)
    soi, eoi = (torch.full((4, 1), config.special(name)) for name in ("soi", "eoi"))
    ids = torch.cat((text, soi, sampled, eoi), dim=1)
    mask = generation_mask(ids, config.special("pad"), config.special("soi"))
    close(fast, model(model.embed(ids), mask, torch.arange(31)[None])[:, -17:-1])


@torch.no_grad()
def test_long_prompts_are_cut_and_keep_their_end(backbone: Showo) -> None:
    words = [f"w{i}" for i in range(14)]
    images = backbone.sample_images(["a"], SAMPLING, seeded())

    def scores(*kept: str) -> Tensor:
        return backbone.image_log_probs([" ".join(kept)], images, SAMPLING)[0]

    assert prompt_row([5] * 14, 53, 0, 12) == [53, 0, *[5] * 10, 0]
    close(scores(*words), scores(*words[:10]))
    assert (scores(*words) - scores(*words[:9])).abs().max() > 1e-3


def test_seeds(backbone: Showo) -> None:
    before = torch.get_rng_state()
    first, repeated, other = (backbone.sample_images(PROMPTS, GUIDED, seeded(seed)).codes for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)
    assert not torch.equal(first[2], first[3])  # a group's images differ


def test_gradient_reaches_the_transformer_and_never_the_image_tokenizer(backbone: Showo) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    log_probs, _ = backbone.image_log_probs(PROMPTS, images, GUIDED)
    weights = trained(backbone)
    assert all(name.startswith("transformer.") for name in weights)
    assert len(weights) == len(list(backbone.transformer.parameters()))
    for name, slope in zip(weights, torch.autograd.grad(log_probs.sum(), list(weights.values())), strict=True):
        assert torch.isfinite(slope).all(), name
        assert slope.abs().max() > 0, name


@pytest.mark.parametrize(("steps", "first"), [(1, 5), (2, 4), (None, 1), (9, 1)])
def test_straight_through_codes(backbone: Showo, steps: int | None, first: int) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    soft = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, steps, seeded()).soft
    assert soft is not None
    assert torch.equal(soft, F.one_hot(images.codes, 64).float())
    weight = torch.randn(soft.shape, generator=seeded(1))
    for step in range(1, 6):
        part = (soft * weight)[images.memory["steps"] == step].sum()
        (slope,) = torch.autograd.grad(part, backbone.transformer.phi.lm_head.weight, retain_graph=True)
        assert (slope.abs().max() > 0) == (step >= first)


def test_the_answer_loss_reaches_generation_through_soft_codes(backbone: Showo) -> None:
    images = backbone.sample_images(PROMPTS, SAMPLING, seeded())
    relaxed = backbone.straight_through(PROMPTS, images, SAMPLING, 1.0, 2, seeded())
    right = backbone.tokenize_answers(["three blue square", "a", "circle", "two"])
    output = backbone.answer_log_probs(relaxed, ["how many ?"] * 4, right)
    hard = backbone.answer_log_probs(images, ["how many ?"] * 4, right)
    close(output, hard)
    (slope,) = torch.autograd.grad(output.sum(), relaxed.soft, retain_graph=True)
    head = backbone.transformer.phi.lm_head.weight
    (through,) = torch.autograd.grad(relaxed.soft, head, slope)
    start = backbone.config.code_start
    assert (through[start : start + 64].abs().sum(1) > 0).all()
    assert through[:start].abs().sum() == 0


@torch.no_grad()
def test_pixels(backbone: Showo) -> None:
    images = backbone.sample_images(PROMPTS, SAMPLING, seeded())
    pixels = backbone.decode(images)
    assert pixels.shape == (4, 3, 64, 64)
    assert 0 <= pixels.min() < pixels.max() <= 1
    one_hot = dataclasses.replace(images, soft=F.one_hot(images.codes, 64).float())
    close(backbone.decode(one_hot), pixels)
    seen = backbone.encode(pixels)
    assert torch.equal(seen.codes, backbone.image_tokenizer.encode(pixels * 2 - 1).flatten(1))
    with pytest.raises(UserError, match=r"\(3, 64, 64\)"):
        backbone.encode(pixels[..., :32])


def test_one_image_in_one_step(backbone: Showo) -> None:
    images: Images = backbone.sample_images(["red"], ImageSampling(steps=1), seeded())
    assert (images.memory["steps"] == 1).all()


def test_control_tokens_in_a_prompt_are_text(backbone: Showo) -> None:
    """An end of text in a prompt, question or answer does not end it."""
    end = backbone.tokenizer.eos_token
    plain = f"{end[0]} {end[1:]}"
    (ids,) = backbone.tokenizer([f"a {end}"], add_special_tokens=False)["input_ids"]
    assert ids[-1] == backbone.tokenizer.eos_token_id  # the tokenizer would read it
    first, second = (backbone.prompt_prefix([prompt], 0.0).cache.keys[0] for prompt in (f"a {end}", f"a {plain}"))
    assert torch.equal(first, second)
    assert backbone.question_ids([f"what {end} color"]) == backbone.question_ids([f"what {plain} color"])
    answers = [backbone.tokenize_answers([f"red {text} circle"]).ids for text in (end, plain)]
    assert torch.equal(*answers)
