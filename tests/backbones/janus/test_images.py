"""Images code by code: the codes of transformers, and scored log-probabilities equal those of sampling."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.backbones.janus.tiny import save
from torch import Tensor

from unirl.backbones import mixins, transformer
from unirl.backbones.janus import Janus
from unirl.sampling.kv_cache import pad_left, pad_right, prefill
from unirl.types import Example, Images, ImageSampling, Rollout
from unirl.updates.sft import SFT

PROMPTS = ["a photo of three blue square", "two circle", "two circle", "red"]
PLAIN = ImageSampling(guidance=0.0)
GUIDED = ImageSampling(guidance=4.0, temperature=0.8)
GREEDY = ImageSampling(guidance=4.0, temperature=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, expected: Tensor | None, within: float = 1e-4) -> None:
    assert expected is not None
    torch.testing.assert_close(got, expected, atol=within, rtol=0)


def generated(backbone: Janus, prompts: list[str], side: str = "left") -> Tensor:
    """Greedy codes of transformers with guidance 5, which is 4 here."""
    template = backbone.processor.apply_chat_template
    texts = [
        template([{"role": "user", "content": [{"type": "text", "text": p}]}], add_generation_prompt=True)
        for p in prompts
    ]
    inputs = backbone.processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")
    janus = backbone.transformer.janus
    return janus.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 1, "tied": True},
        {"seed": 2, "kv_heads": 2},
        {"seed": 3, "size": 48, "codes": 23},
        {"seed": 4, "first": "<unk> <pad> <eos> <bos>", "heads": 8, "kv_heads": 1},
    ],
    ids=["plain", "tied", "grouped", "larger", "other-ids"],
)
def test_greedy_codes_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path, **changes))).eval()
    for prompts in (PROMPTS, PROMPTS[:1], PROMPTS[3:]):
        codes = backbone.sample_images(prompts, GREEDY).codes
        assert torch.equal(codes, generated(backbone, prompts))
        assert len(codes.unique()) > 4


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, GREEDY], ids=["plain", "guided", "greedy"])
def test_scored_log_probs_are_those_of_sampling(backbone: Janus, sampling: ImageSampling) -> None:
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    log_probs, scored = backbone.image_log_probs(PROMPTS, images, sampling)
    assert scored.all()
    close(log_probs, images.log_probs)


def test_gradient_checkpointing_has_the_same_gradients(checkpoint: Path) -> None:
    found = []
    for gradient_checkpointing in (False, True):
        backbone = Janus(str(checkpoint), gradient_checkpointing=gradient_checkpointing)
        backbone.build()
        images = backbone.sample_images(PROMPTS, GUIDED, seeded())
        relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, None, seeded(1))
        answers = backbone.tokenize_answers(["red"] * 4)
        log_probs, _ = backbone.image_log_probs(PROMPTS, images, GUIDED)
        (log_probs.sum() + backbone.answer_log_probs(relaxed, ["how many"] * 4, answers).sum()).backward()
        found.append({n: p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_chunked_logits_give_the_same_log_probs(backbone: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    found = []
    for chunk in (4, 4096):
        monkeypatch.setattr(transformer, "CHUNK_SIZE", chunk)
        backbone.zero_grad()
        log_probs, _ = backbone.image_log_probs(PROMPTS, images, GUIDED)
        log_probs.sum().backward()
        found.append((log_probs.detach(), backbone.transformer.base_model.generation_head.proj_out.weight.grad.clone()))
    close(found[0][0], found[1][0], 1e-6)
    torch.testing.assert_close(found[0][1], found[1][1])


def test_scoring_never_touches_the_text_head_and_chunks_the_other(
    backbone: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the text head")

    rows: list[int] = []
    head = backbone.transformer.base_model.generation_head.vision_head
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    monkeypatch.setattr(backbone.transformer.janus.lm_head, "forward", refuse)
    monkeypatch.setattr(transformer, "CHUNK_SIZE", 8)
    handle = head.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[:-1].numel()))
    backbone.image_log_probs(PROMPTS, images, GUIDED)
    handle.remove()
    assert rows == [8] * (4 * 16 // 8)
    backbone.sample_images(PROMPTS, GUIDED, seeded())
    backbone.straight_through(PROMPTS, images, GUIDED)


def test_nothing_in_the_loop_waits_for_the_device(backbone: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = ("item", "tolist", "numpy", "cpu", "nonzero", "__bool__", "__int__", "__float__", "__index__")
    looped = mixins.sample_codes

    def watched(*given: Any) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("waits for the device")

        with monkeypatch.context() as patch:
            for name in waits:
                patch.setattr(Tensor, name, refuse)
            return looped(*given)

    plain = backbone.sample_images(PROMPTS, GUIDED, seeded()).codes
    monkeypatch.setattr(mixins, "sample_codes", watched)
    assert torch.equal(backbone.sample_images(PROMPTS, GUIDED, seeded()).codes, plain)


@torch.no_grad()
def test_scores_are_those_of_the_plain_forward(backbone: Janus) -> None:
    """transformers' own pass over prompt and codes, and its generation head at the image's places."""
    images = backbone.sample_images(PROMPTS[:1], PLAIN, seeded())
    ids, model = backbone.prompt_ids(PROMPTS[:1])[0], backbone.transformer.janus
    ids = [*ids, backbone.image_start_id]
    text = model.get_input_embeddings()(torch.tensor([ids]))
    embeds = torch.cat((text, model.prepare_embeddings_for_image_generation(images.codes[:, :-1])), 1)
    hidden = model.model(inputs_embeds=embeds).last_hidden_state[:, len(ids) - 1 :]
    logits = model.model.generation_head(hidden)
    expected = logits.log_softmax(-1).gather(-1, images.codes[..., None])[..., 0]
    close(backbone.image_log_probs(PROMPTS[:1], images, PLAIN)[0], expected)


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED], ids=["plain", "guided"])
@torch.no_grad()
def test_log_probs_do_not_depend_on_the_batch(backbone: Janus, sampling: ImageSampling) -> None:
    images = backbone.sample_images(PROMPTS, sampling, seeded())
    assert images.log_probs is not None
    for row, prompt in enumerate(PROMPTS):
        log_probs, _ = backbone.image_log_probs([prompt], images[row : row + 1], sampling)
        close(log_probs[0], images.log_probs[row])


@torch.no_grad()
def test_the_side_of_the_padding_makes_no_difference(backbone: Janus) -> None:
    codes = torch.randint(40, (4, 16), generator=seeded())
    rows, hidden = backbone.prompt_ids(PROMPTS), []
    for pad in (pad_left, pad_right):
        ids, mask = pad(rows)
        prefix = prefill(backbone.transformer, backbone.transformer.embed(ids), mask)
        hidden.append(backbone.code_hidden(prefix, codes))
    assert len({len(row) for row in rows}) > 1
    close(hidden[0], hidden[1], 1e-5)
    close(hidden[0], backbone.code_hidden(backbone.prompt_prefix(PROMPTS, 0.0), codes), 1e-5)


def test_unconditional_rows_are_prefilled_once_for_each_length(
    backbone: Janus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every distinct prompt once, and one unguided row for every distinct length, whatever the group's size."""
    seen: list[int] = []
    forward = backbone.transformer.forward
    monkeypatch.setattr(backbone.transformer, "forward", lambda *a: seen.append(len(a[0])) or forward(*a))
    prompts = ["two circle", "red circle", "a photo of red"]
    prefix = backbone.prompt_prefix([p for p in prompts for _ in range(5)], 4.0)
    assert seen == [3 + 2]
    assert len(prefix) == 30


def test_the_generator_determines_the_images(backbone: Janus) -> None:
    one, same, other = (backbone.sample_images(PROMPTS, PLAIN, seeded(s)).codes for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[1], one[2])  # two images of one prompt


@torch.no_grad()
def test_code_frequencies_are_their_probabilities(backbone: Janus) -> None:
    prompts = ["red"] * 4000
    images = backbone.sample_images(prompts, GUIDED, seeded())
    every = torch.arange(40).view(40, 1).expand(-1, 16)
    probable = backbone.image_log_probs(["red"] * 40, Images(every), GUIDED)[0][:, 0].exp()
    close(probable.sum(), torch.tensor(1.0))
    seen = images.codes[:, 0].bincount(minlength=40) / 4000
    assert (seen - probable).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_gradient_of_image_log_probs_reaches_the_generation_parameters(backbone: Janus) -> None:
    backbone.zero_grad()
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    backbone.image_log_probs(PROMPTS, images, GUIDED)[0].sum().backward()
    trained = {name for name, p in backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("language_model.layers.0" in name for name in trained)
    assert any("generation_embeddings" in name for name in trained)
    assert not any("vqmodel" in name or "vision_model" in name or "lm_head" in name for name in trained)


def test_soft_codes_are_the_sampled_ones_and_carry_gradient_to_the_last_steps(backbone: Janus) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, 3, seeded(1))
    assert relaxed.soft is not None
    assert relaxed.pixels is None
    assert torch.equal(relaxed.soft.argmax(-1), images.codes)
    close(relaxed.soft.detach(), F.one_hot(images.codes, 40).float(), 1e-6)
    weighed = relaxed.soft * torch.randn(40, generator=seeded(2))
    head = backbone.transformer.base_model.generation_head.vision_head.weight
    (early,) = torch.autograd.grad(weighed[:, :13].sum(), head, retain_graph=True)
    (late,) = torch.autograd.grad(weighed[:, 13:].sum(), head)
    assert early.abs().sum() == 0
    assert late.abs().sum() > 0


def test_soft_codes_decode_to_the_same_images(backbone: Janus) -> None:
    images = backbone.sample_images(PROMPTS, GUIDED, seeded())
    relaxed = backbone.straight_through(PROMPTS, images, GUIDED, 1.0, None, seeded(1))
    pixels = backbone.decode(relaxed)
    close(pixels.detach(), backbone.decode(images), 1e-5)
    assert 0 <= pixels.min() < pixels.max() <= 1
    (slope,) = torch.autograd.grad(pixels.sum(), relaxed.soft)  # type: ignore[arg-type]
    assert slope.abs().sum() > 0


def test_scoring_keeps_less_than_the_plain_forward(backbone: Janus) -> None:
    """Blocks keep what they are given, and compute the rest again for the gradient."""
    images = backbone.sample_images(PROMPTS[:1] * 8, PLAIN, seeded())
    ids, model = backbone.prompt_ids(PROMPTS[:1])[0], backbone.transformer.janus
    ids = [*ids, backbone.image_start_id]

    def plain() -> Tensor:
        text = model.get_input_embeddings()(torch.tensor([ids] * 8))
        embeds = torch.cat((text, model.prepare_embeddings_for_image_generation(images.codes[:, :-1])), 1)
        hidden = model.model(inputs_embeds=embeds).last_hidden_state[:, len(ids) - 1 :]
        return model.model.generation_head(hidden).log_softmax(-1).gather(-1, images.codes[..., None])[..., 0]

    saved_bytes, gradients = [], []
    for way in (plain, lambda: backbone.image_log_probs(PROMPTS[:1] * 8, images, PLAIN)[0]):
        backbone.zero_grad()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.append(t.nbytes) or t, lambda t: t):
            log_probs = way()
        log_probs.sum().backward()
        saved_bytes.append(sum(saved))
        weights = (
            backbone.transformer.base_model.language_model.embed_tokens.weight,
            model.model.generation_embeddings.weight,
        )
        gradients.append([weight.grad for weight in weights])
    assert saved_bytes[1] < saved_bytes[0] / 2
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_decoding_and_encoding_are_checkpointed_in_batches(checkpoint: Path) -> None:
    """Nothing but pixels and features is saved for the backward pass of the image decoder and the vision tower."""
    saved_bytes, sizes, gradients = [], [], []
    for gradient_checkpointing in (False, True):
        backbone = Janus(str(checkpoint), gradient_checkpointing=gradient_checkpointing).eval()
        backbone.build()
        soft = torch.rand(10, 16, 40, generator=seeded()).softmax(-1).requires_grad_()
        saved: list[int] = []
        vq = backbone.transformer.base_model.vqmodel
        handle = vq.decoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=saved: to.append(t.nbytes) or t, lambda t: t):
            seen = backbone.embed_images(Images(torch.zeros(10, 16, dtype=torch.long), soft=soft))
        saved_bytes.append(sum(saved))
        gradients.append(torch.autograd.grad(seen.square().sum(), soft)[0])
        handle.remove()
    assert saved_bytes[1] < saved_bytes[0] / 4
    assert sizes == [10, 4, 4, 2, 2, 4, 4]  # the second time for the gradient
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("relaxed", "trained"), [(None, 16), (3, 3)])
def test_end_to_end_all_codes_learn_unless_some_are_asked_for(
    backbone: Janus, relaxed: int | None, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    straight = mixins.straight_through
    monkeypatch.setattr(mixins, "straight_through", lambda z, *a: sizes.append(z.shape[1]) or straight(z, *a))
    images, answers = backbone.sample_images(PROMPTS, PLAIN, seeded()), backbone.tokenize_answers(["red"] * 4)
    examples, ones = [Example(prompt, "what", "red", "c") for prompt in PROMPTS], torch.ones(4)
    rollout = Rollout(examples, images, answers, ones, {}, ones.bool(), 2)
    SFT(end_to_end=True, straight_through_steps=relaxed).loss(backbone, rollout, PLAIN, seeded(1))
    assert sizes == [trained]
