"""The example backbone over transformers' Chameleon: the contract, and the same numbers as transformers."""

import io
import tokenize
from pathlib import Path

import pytest
import torch
from tests.backbones import chameleon_example
from tests.backbones.chameleon_example import Chameleon, ChameleonWithDecoder
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import ChameleonConfig, PreTrainedTokenizerFast

from unirl.backbones import Backbone
from unirl.testing import BackboneConformance
from unirl.types import AnswerSampling, ImageSampling

ROOT = Path(__file__).parents[2]
SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<image>", "<racm3:break>", "<eoss>", "<reserved08706>")
WORDS = "a photo of red blue two circle square what how many color is it ? are there in the"
CODES = 24


def save(folder: Path, swin_norm: bool = False) -> Path:
    """A checkpoint of random weights, whose code ids are not in the order of the codes."""
    names = [f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z" for code in range(CODES)]
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(names, key=str.lower, reverse=True)])}
    vocabulary |= {word: len(vocabulary) + i for i, word in enumerate(WORDS.split())}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    vq = {"embed_dim": 8, "num_embeddings": CODES, "latent_channels": 32, "resolution": 16, "base_channels": 32}
    config = ChameleonConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        swin_norm=swin_norm,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        vq_config=vq | {"channel_multiplier": [1, 1, 1], "num_res_blocks": 1},
        vocabulary_map=vocabulary,
    )
    torch.manual_seed(0)
    model = ChameleonWithDecoder(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "vqmodel.encoder" not in name:  # distributions far from uniform
                weight.normal_(std=1.0 if "embed" in name else 1.5 * weight[0].numel() ** -0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("chameleon"))


class TestChameleon(BackboneConformance):
    frozen = ("vqmodel", "image_decoder")

    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoint: Path) -> None:
        self.checkpoint = str(checkpoint)

    def make(self) -> Backbone:
        return Chameleon.from_pretrained(self.checkpoint)

    def make_unbuilt(self) -> Backbone:
        return Chameleon(self.checkpoint)


@torch.no_grad()
@pytest.mark.parametrize("swin_norm", [False, True])
def test_log_probs_are_those_of_transformers(tmp_path: Path, swin_norm: bool) -> None:
    backbone = Chameleon.from_pretrained(str(save(tmp_path, swin_norm)))
    model, permutation = backbone.transformer.model, backbone.transformer.permutation
    assert permutation is not None
    code_ids = permutation + backbone.transformer.columns.start

    def logits(row: list[int]) -> Tensor:
        return model.lm_head(model.model(torch.tensor([row])).last_hidden_state[0])

    prompts, sampling = ["a photo of two red circle", "blue"], ImageSampling(temperature=0.8)
    images = backbone.sample_images(prompts, sampling, torch.Generator().manual_seed(0))
    row = [*backbone.prompt_ids(prompts)[0], backbone.image_start_id, *code_ids[images.codes[0]].tolist()]
    expected = (logits(row)[-17:-1, code_ids] / 0.8).log_softmax(-1).gather(-1, images.codes[0, :, None])[:, 0]
    torch.testing.assert_close(images.log_probs[0], expected, atol=1e-4, rtol=0)
    assert len(images.codes.unique()) > 4

    pixels, question = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ["how many circle ?"]
    given = backbone.encode(pixels)
    assert torch.equal(code_ids[given.codes], model.get_image_tokens(pixels * 2 - 1))
    answers = backbone.sample_answers(given, question, AnswerSampling(5))
    context, asked = backbone.image_context_ids, backbone.question_ids(question)[0]
    row = [*context, *code_ids[given.codes[0]].tolist(), *asked, *answers.ids[0].tolist()]
    assert torch.equal(logits(row)[-1 - answers.ids.shape[1] : -1].argmax(-1), answers.ids[0])


def test_it_takes_fewer_than_110_lines_and_is_the_documented_one() -> None:
    source = Path(chameleon_example.__file__).read_text(encoding="utf-8")
    assert source in (ROOT / "docs" / "plugins" / "first-backbone.md").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 110
    kinds = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in kinds]
    lines = {token.start[0] for token in tokens if not token.string.startswith('"""')}
    assert len(lines) < 80
