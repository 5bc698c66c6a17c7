"""The public toolkit: what it exports, and the transformers under the mixins."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import unirl.backbones
import unirl.sampling
from unirl.backbones import LlamaDecoder, LlamaStaticDecoder, SharedVocabularyTransformer
from unirl.sampling import IncrementalDecoder, extend, pad_left, prefill


def model(**options: Any) -> SharedVocabularyTransformer:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=30, num_key_value_heads=2, initializer_range=0.5, **sizes))
    return SharedVocabularyTransformer(llama, options.get("code_ids", range(10, 20)))


@torch.no_grad()
@pytest.mark.parametrize("decoder", [IncrementalDecoder, LlamaDecoder, LlamaStaticDecoder])
def test_every_decoder_computes_what_one_pass_computes(decoder: type[IncrementalDecoder]) -> None:
    transformer = model()
    ids, mask = pad_left([[1, 2, 3], [4]])
    prefix = prefill(transformer, transformer.embed(ids), mask)
    embeds = transformer.embed(torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(0)))
    expected = extend(transformer, prefix, embeds, torch.ones(2, 6, dtype=torch.bool))
    step = decoder(transformer if decoder is IncrementalDecoder else transformer.language_model, prefix, 6)
    hidden = torch.stack([step(embeds[:, i]) for i in range(6)], 1)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "code_ids", [list(range(10, 20)), [19, 12, 10, 11, 13, 18, 14, 17, 15, 16]], ids=["in order", "permuted"]
)
def test_codes_have_the_embeddings_and_logits_of_their_tokens(code_ids: list[int]) -> None:
    transformer = model(code_ids=code_ids)
    codes, ids = torch.arange(10), torch.tensor(code_ids)
    assert torch.equal(transformer.embed_codes(codes), transformer.embed(ids))
    torch.testing.assert_close(transformer.embed_codes(torch.eye(10)), transformer.embed(ids))
    hidden = torch.randn(4, 16)
    cond, uncond = transformer.text_logits(hidden)[:, ids].chunk(2)
    torch.testing.assert_close(transformer.code_logits(hidden), torch.cat((cond, uncond)))
    torch.testing.assert_close(transformer.code_logits(hidden, 2.0), 3 * cond - 2 * uncond, atol=1e-5, rtol=1e-5)


def test_code_ids_must_be_consecutive() -> None:
    with pytest.raises(ValueError, match="3 image codes have ids from 10 to 13: expected consecutive ids"):
        model(code_ids=[10, 11, 13])


def test_dropout_stays_off() -> None:
    transformer = model()
    assert not any(module.training for module in transformer.train().modules())


def test_a_decoder_without_static_shapes_says_so() -> None:
    transformer = model()
    prefix = prefill(transformer, transformer.embed(torch.tensor([[1]])), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="has no decoder of static shapes"):
        transformer.incremental_decoder(prefix, 1, static_shapes=True)


@pytest.mark.parametrize("package", [unirl.backbones, unirl.sampling])
def test_everything_exported_is_there_and_documented(package: Any) -> None:
    missing = [name for name in package.__all__ if not getattr(package, name).__doc__]
    assert not missing
    assert package.__all__ == sorted(package.__all__)
