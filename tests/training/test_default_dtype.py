"""Random numbers, schedules and comparisons are float32, whatever torch's default dtype is.

Lightning sets the default dtype to that of the weights where they are in 16 bit.
"""

import ast
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unirl import ImageSampling, functional
from unirl.backbones.janus import Janus
from unirl.backbones.showo import Showo
from unirl.functional import straight_through
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.sampling.autoregressive import sample_uniforms
from unirl.sampling.masked import random_contexts, sample_masked
from unirl.updates.grpo import GRPO, ImageScoring, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("src", "plugins/*/src") for path in ROOT.glob(f"{folder}/**/*.py")]
FLOAT_FACTORIES = {"rand", "randn", "zeros", "ones", "empty", "eye", "linspace", "logspace", "normal", "scalar_tensor"}
"""Functions of torch whose result has the default dtype unless one is given, also for whole numbers."""
CPU = torch.device("cpu")
RULES = {
    "grpo": lambda: GRPO(kl=KLPenalty(0.1), answer_labels="self"),
    "random masks": lambda: GRPO(scoring=ImageScoring("random_masks"), answer_labels="self"),
    "sft": lambda: SFT(end_to_end=False, answer_labels="prompt"),
    "end-to-end": lambda: SFT(end_to_end=True, straight_through_steps=2),
}


class Find16Bit(TorchDispatchMode):
    """Notes the lines of this project that make a 16-bit tensor, in a run without one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            # PyTorch's own checkpointing makes an empty one.
            if isinstance(value, Tensor) and value.dtype == torch.bfloat16 and value.numel() and not value.is_meta:
                self._note()
        return result

    def _note(self) -> None:
        stack = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
        frame = next(frame for frame in reversed(stack) if "/torch/" not in frame.filename)
        if Path(frame.filename) in SOURCES:
            self.lines.add(f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}: {frame.line}")


@contextmanager
def bfloat16_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_functions_that_make_floats_are_given_a_dtype() -> None:
    problems = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            of_torch, name = ast.unparse(node.func.value) == "torch", node.func.attr
            if of_torch and name in FLOAT_FACTORIES and "dtype" not in {keyword.arg for keyword in node.keywords}:
                problems.append(f"{path.relative_to(ROOT)}:{node.lineno}: torch.{name} without dtype")
    assert len(SOURCES) > 100
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", [Showo, Janus])
def test_a_run_makes_no_number_in_the_default_dtype(
    kind: Any, rule: str, runs: Any, shapes_checkpoint: Path, janus_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = shapes_checkpoint if kind is Showo else janus_checkpoint
    evaluation = {"num_understanding": 4, "num_diversity_prompts": 1} if rule == "grpo" else {}
    options = {"accept_threshold": 0.0, "image_sampling": ImageSampling(4, guidance=0.5), **evaluation}
    with bfloat16_by_default(), Find16Bit() as found:
        model = runs.module(
            kind(str(checkpoint)), RULES[rule](), [Keyword(), Likelihood()], judge=ShapesJudge(), **options
        )
        trainer = runs.trainer(tmp_path, max_steps=1, limit_val_batches=1 if evaluation else 0, num_sanity_val_steps=0)
        trainer.fit(model, runs.data(num_val_prompts=2, val_batch_size=2, prompts_per_step=1))
    assert not found.lines, "\n".join(sorted(found.lines))
    assert {p.dtype for p in model.backbone.parameters()} == {torch.float32}


DRAWS: dict[str, Callable[[], Tensor]] = {
    "uniform numbers": lambda: sample_uniforms(64, 64, rng(), CPU),
    "Gumbel noise": lambda: functional.gumbel(torch.zeros(64, 64, dtype=torch.bfloat16), rng()),
    "straight-through": lambda: straight_through(
        torch.zeros(64, 8, dtype=torch.bfloat16, requires_grad=True), torch.zeros(64, dtype=torch.long), 1.0, rng()
    ),
    "contexts": lambda: random_contexts(64, 16, 6, rng(), CPU)[1],
    "masked decoding": lambda: (
        sample_masked(
            lambda codes, known: torch.zeros(*codes.shape, 8),
            torch.zeros(4, 64, dtype=torch.long),
            ImageSampling(6),
            rng(),
        ).log_probs
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_are_the_same_under_any_default_dtype(name: str) -> None:
    expected = DRAWS[name]()
    with bfloat16_by_default():
        drawn = DRAWS[name]()
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, expected)


def test_uniform_numbers_are_distinct_and_rarely_0() -> None:
    """In bfloat16, 4096 of them have a few hundred values, and one in 512 is exactly 0: the first code, always."""
    with bfloat16_by_default():
        uniforms = sample_uniforms(64, 64, rng(), CPU)
    assert len(uniforms.unique()) > 4090
    assert (uniforms > 0).all()


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "group_mean": lambda x: functional.group_mean(x, 4),
    "group_std": lambda x: functional.group_std(x, 4),
    "group_advantages": lambda x: functional.group_advantages(x, 4),
    "weighted group_advantages": lambda x: functional.group_advantages(x, 4, weights=x),
    "clipped_objective": lambda x: functional.clipped_objective(x.view(4, 2), x[:4], 0.2, 0.2),
    "clip_ratio": lambda x: functional.clip_ratio(x.view(4, 2), x.view(4, 2), 0.2, 0.2),
    "k3": lambda x: functional.k3(x, x / 2),
    "geometric_mean": lambda x: functional.geometric_mean(-x.view(4, 2), torch.ones(4, 2, dtype=torch.bool)),
    "masked_mean": lambda x: functional.masked_mean(x, x > 0.5),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_16_bit_numbers_are_float32(name: str) -> None:
    numbers = torch.rand(8, generator=rng(), dtype=torch.float32).bfloat16()
    with bfloat16_by_default():
        result = STATISTICS[name](numbers)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, STATISTICS[name](numbers.float()), rtol=0, atol=1e-6)


def test_the_mean_of_many_is_divided_by_their_exact_number() -> None:
    with bfloat16_by_default():  # which has no 257
        mean = functional.masked_mean(torch.ones(257, dtype=torch.float32), torch.ones(257, dtype=torch.bool))
    assert mean == 1
