"""Images by CUDA graphs have the codes of the plain loop; graphs are recorded operators here, see `recorded_graphs`."""

import gc
import itertools
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones.janus.tiny import save
from tests.recorded_graphs import RecordedCapture

from unirl.backbones.janus import Janus
from unirl.backbones.llama import PREFIX_MULTIPLE, LlamaStaticDecoder
from unirl.backbones.lora import LoRA, add_adapters
from unirl.backbones.mixins import AutoregressiveImages, SamplingStep
from unirl.errors import UserError
from unirl.sampling import Prefix, cuda_graph
from unirl.types import Images, ImageSampling

PROMPTS = ["a photo of three blue square", "two circle", "two circle", "red"]
PLAIN = ImageSampling(guidance=0.0)
GUIDED = ImageSampling(guidance=4.0, temperature=0.8)
GREEDY = ImageSampling(guidance=4.0, temperature=0.0)
BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[RecordedCapture]:
    """A CPU that captures graphs."""
    monkeypatch.setattr(cuda_graph, "CUDACapture", RecordedCapture)
    monkeypatch.setattr(AutoregressiveImages, "_samples_by_graphs", lambda self: self.cuda_graph is not False)
    return RecordedCapture


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Janus:
    """36 codes: two lengths of attention."""
    return Janus.from_pretrained(str(save(tmp_path_factory.mktemp("large"), seed=3, size=48))).eval()


@pytest.fixture
def in_lines(large: Janus) -> Iterator[Janus]:
    """A token that is never sampled follows every 9 codes, as in Emu3."""
    large.codes_per_line, large.end_of_line_id = 9, 5
    yield large
    large.codes_per_line = None


def generate(backbone: Janus, prompts: list[str], sampling: ImageSampling, by_graphs: bool | None) -> Images:
    backbone.cuda_graph = by_graphs
    return backbone.sample_images(prompts, sampling, torch.Generator().manual_seed(1))


def check(backbone: Janus, prompts: list[str], sampling: ImageSampling, within: float = 1e-4) -> Images:
    """Both ways sample the same images."""
    plain, graphed = (generate(backbone, prompts, sampling, by_graphs) for by_graphs in (False, True))
    assert torch.equal(plain.codes, graphed.codes)
    torch.testing.assert_close(plain.log_probs, graphed.log_probs, atol=within, rtol=0)
    return graphed


@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, GREEDY], ids=["plain", "guided", "greedy"])
def test_graphs_sample_the_codes_of_the_loop(
    large: Janus, recorded: type[RecordedCapture], sampling: ImageSampling
) -> None:
    for prompts in (PROMPTS, PROMPTS[:1], [f"{'red ' * PREFIX_MULTIPLE}circle", "red"]):
        assert len(check(large, prompts, sampling).codes.unique()) > 8
        assert [graph.replays for graph in recorded.graphs] == [32 - 3, 4 - 3]
        assert recorded.warm_ups == 2 * 3


def test_lines_have_a_graph_of_their_own(in_lines: Janus, recorded: type[RecordedCapture]) -> None:
    check(in_lines, PROMPTS, GUIDED)
    assert [graph.replays for graph in recorded.graphs] == [26, 4]  # three ends of a line are the warm-up of theirs
    in_lines.codes_per_line = 4
    check(in_lines, PROMPTS, GUIDED)
    assert len(recorded.graphs) == 3


def test_later_rollouts_use_new_weights_and_adapters(tmp_path: Path, recorded: type[RecordedCapture]) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path))).eval()
    codes = [check(backbone, PROMPTS, GREEDY).codes]
    add_adapters(backbone.transformer, LoRA(("q_proj", "v_proj", "down_proj"), rank=2))
    for _ in range(2):
        with torch.no_grad():
            for name, weight in backbone.named_parameters():
                if "lora_B" in name:
                    weight.normal_()
        codes.append(check(backbone, PROMPTS, GREEDY).codes)
        assert recorded.graphs[0].replays > 8
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(codes))


def test_nothing_is_held_between_rollouts(
    large: Janus, recorded: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders: list[weakref.ref[LlamaStaticDecoder]] = []
    prepare = LlamaStaticDecoder._begin

    def watched(decoder: LlamaStaticDecoder, prefix: Prefix) -> None:
        decoders.append(weakref.ref(decoder))
        prepare(decoder, prefix)

    monkeypatch.setattr(LlamaStaticDecoder, "_begin", watched)
    gc.disable()
    try:
        generate(large, PROMPTS, GUIDED, True)
        recorded.graphs.clear()
        assert [decoder() for decoder in decoders] == [None]
    finally:
        gc.enable()


def test_graphs_hold_no_casts_of_weights_under_autocast(large: Janus, recorded: type[RecordedCapture]) -> None:
    with BFLOAT16:
        graphed = generate(large, PROMPTS, GUIDED, True)
        plain = generate(large, PROMPTS, GUIDED, False)
    assert (graphed.codes == plain.codes)[:, 0].all()  # later ones differ where attention rounds otherwise
    weights = {weight.data_ptr() for weight in large.parameters()}
    for graph in recorded.graphs:
        casts = [args[0] for func, args, _, _ in graph.calls if func.name() == "aten::_to_copy"]
        assert casts
        assert not any(tensor.data_ptr() in weights for tensor in casts)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"kv_heads": 2}], ids=["heads", "grouped"])
def test_every_code_runs_the_same_operators_on_the_same_memory(
    tmp_path: Path, recorded: type[RecordedCapture], changes: dict[str, Any]
) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path, **changes))).eval()
    prefix = backbone.prompt_prefix(PROMPTS, GUIDED.guidance)
    step = SamplingStep(backbone, prefix, GUIDED, static_shapes=True)
    buffers = cuda_graph._Buffers(step, backbone._start(prefix)[:, 0], torch.rand(8, 4))

    def addresses() -> list[int]:
        lasting = [*vars(buffers).values(), *vars(step.decoder).values(), *step.decoder.keys, *step.decoder.values]
        return [one.data_ptr() for one in lasting if isinstance(one, torch.Tensor)]

    before, graphs = addresses(), []
    for _ in range(3):
        graphs.append(recorded(torch.device("cpu")).capture(buffers.next_code))
        graphs[-1].replay()
    assert graphs[0].shapes() == graphs[1].shapes() == graphs[2].shapes()
    assert buffers.index.item() == 3
    assert addresses() == before


@pytest.mark.parametrize(("context", "expected"), [(nullcontext(), 26), (BFLOAT16, 28)], ids=["float32", "autocast"])
def test_operators_of_a_layer(tmp_path: Path, recorded: type[RecordedCapture], context: Any, expected: int) -> None:
    """On a GPU 6 fewer: a norm is one operator there. Autocast adds a cast for attention, and one for the MLP."""
    counts = []
    for layers in (1, 2):
        backbone = Janus.from_pretrained(str(save(tmp_path / str(layers)))).eval()
        backbone.transformer.language_model.layers = backbone.transformer.language_model.layers[:layers]
        with context:
            generate(backbone, PROMPTS, GUIDED, True)
        counts.append(len(recorded.graphs[0].calls))
    assert counts[1] - counts[0] == expected


def test_attention_reads_no_more_than_its_segment(large: Janus) -> None:
    decoder = SamplingStep(large, large.prompt_prefix(PROMPTS, 0.0), PLAIN, static_shapes=True).decoder
    assert isinstance(decoder, LlamaStaticDecoder)
    assert [decoder.limit_attention(token) - decoder.start for token in (0, 31, 32, 35)] == [32, 32, 64, 64]
    assert all(buffer.shape[2] == decoder.start + 64 for buffer in (*decoder.keys, *decoder.values))


def refusing(message: str) -> Callable[..., Any]:
    def refuse(*_: object) -> None:
        raise RuntimeError(message)

    return refuse


def test_what_cannot_be_captured_is_sampled_without_a_graph(
    large: Janus, recorded: type[RecordedCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate(large, PROMPTS, GUIDED, True)
    monkeypatch.setattr(recorded, "capture", refusing("CUDA error: operation not permitted\nand more"))
    with pytest.warns(UserWarning, match=r"sampled without a CUDA graph.*\(CUDA error: operation not permitted\)"):
        plain = generate(large, PROMPTS, GUIDED, None)
    assert torch.equal(plain.codes, expected.codes)
    with pytest.raises(UserError, match="no CUDA graph of the sampling step can be captured"):
        generate(large, PROMPTS, GUIDED, True)


def test_a_cpu_has_no_graphs(large: Janus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(large, PROMPTS, GUIDED, None)
    with pytest.raises(UserError, match="cuda_graph is true, but the model is on 'cpu'"):
        generate(large, PROMPTS, GUIDED, True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: UNIRL_TEST_GPU=1 pytest -k gpu")
@pytest.mark.parametrize("sampling", [PLAIN, GUIDED, GREEDY], ids=["plain", "guided", "greedy"])
def test_a_gpu_samples_the_codes_of_the_loop(tmp_path: Path, sampling: ImageSampling) -> None:
    backbone = Janus.from_pretrained(str(save(tmp_path, size=48))).eval().cuda()
    for by_graphs in (False, True):
        backbone.cuda_graph = by_graphs
        images = backbone.sample_images(PROMPTS, sampling, torch.Generator("cuda").manual_seed(1))
        scored, _ = backbone.image_log_probs(PROMPTS, images, sampling)
        torch.testing.assert_close(scored, images.log_probs, atol=1e-3, rtol=0)
