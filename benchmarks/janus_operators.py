"""How many kernels a GPU runs for a code of Janus, on any machine: operators on fake CUDA tensors of the public sizes.

python benchmarks/janus_operators.py
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA, add_adapters
from unirl.backbones.mixins import SamplingStep
from unirl.sampling.cuda_graph import _Buffers
from unirl.sampling.kv_cache import prefill
from unirl.types import ImageSampling

SAMPLING = ImageSampling(guidance=4.0)
ADAPTERS = LoRA(("q_proj", "k_proj", "v_proj", "o_proj"), rank=64, alpha=128)
ROWS, WIDTH = 8, 40
"""Images of a group, and tokens of a prompt; they change no count."""
CUDA = torch.device("cuda")


@dataclass
class Count:
    """Operators that run a kernel each.

    Args:
        kernels: All of them.
        casts: Those that only change a type.
    """

    kernels: int = 0
    casts: int = 0


class Counter(TorchDispatchMode):
    """Counts operators in a `with` block, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.paused = Count(), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not (self.paused or func.is_view or func.namespace == "prim"):
            self.count.kernels += 1
            self.count.casts += func is torch.ops.aten._to_copy.default
        return func(*args, **kwargs or {})


class FusedAttention(TorchFunctionMode):
    """Counts attention as the one kernel that it is on a GPU, and the casts of its arguments under autocast."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs or {})
        casts = 0
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            casts = sum(isinstance(one, Tensor) and one.dtype not in (dtype, torch.bool) for one in args)
        self.counter.count.kernels += 1 + casts
        self.counter.count.casts += casts
        self.counter.paused = True
        result = func(*args, **kwargs or {})
        self.counter.paused = False
        return result


def make(name: str, adapters: bool) -> Janus:
    """A public model without memory."""
    backbone = Janus(name)
    backbone.build(meta=True)
    if adapters:
        add_adapters(backbone, ADAPTERS)
    backbone.image_start_id = 0
    return backbone


def to_fake_cuda(model: nn.Module, dtype: torch.dtype) -> None:
    """Replace weights and buffers by fake CUDA tensors, in place. Call it under `FakeTensorMode`."""
    for module in model.modules():
        for key, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=dtype, device=CUDA)
                module._parameters[key] = nn.Parameter(fake, weight.requires_grad)
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)


@contextmanager
def mixed_precision(enabled: bool) -> Iterator[None]:
    """Autocast to bfloat16. `torch.autocast` itself switches off where there is no GPU."""
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)


@torch.no_grad()
def count(name: str, precision: str, adapters: bool, static_shapes: bool) -> Count:
    """Operators of a code, after the first ones: weights have been cast by then.

    Args:
        name: A public model.
        precision: As Lightning's.
        adapters: Whether adapters are trained and everything else is frozen.
        static_shapes: Whether the step is that of a CUDA graph.
    """
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    backbone = make(name, adapters)
    transformer = backbone.transformer
    with FakeTensorMode(allow_non_fake_inputs=True), mixed_precision(precision == "bf16-mixed"):
        to_fake_cuda(backbone, dtype)
        ids = torch.zeros(2 * ROWS, WIDTH, dtype=torch.long, device=CUDA)
        prefix = prefill(transformer, transformer.embed(ids), torch.ones_like(ids, dtype=torch.bool))
        with mock.patch.object(Tensor, "__bool__", return_value=True):  # no prompt is padded; fake tensors cannot tell
            step = SamplingStep(backbone, prefix, SAMPLING, *[True] * static_shapes)
        start, uniforms = backbone._start(prefix)[:, 0], torch.empty(backbone.num_image_codes, ROWS, device=CUDA)
        run = _Buffers(step, start, uniforms).next_code if static_shapes else lambda: step(start, uniforms[0])
        for _ in range(3):
            counter = Counter()
            with counter, FusedAttention(counter):
                run()
    return counter.count


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str, bool], list[Count]]:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ["deepseek-community/Janus-Pro-1B", "deepseek-community/Janus-Pro-7B"]
    parser.add_argument("--models", nargs="+", default=names)
    parser.add_argument("--no-graph", action="store_true", help="leave out the step of a CUDA graph")
    options = parser.parse_args(arguments)
    table = Table(title="kernels of a code (of them casts)")
    for column in ("model", "precision", "trained", "loop", "CUDA graph"):
        table.add_column(column, no_wrap=True)
    counts = {}
    for name in options.models:
        for precision in ("32-true", "bf16-true", "bf16-mixed"):
            for adapters in (False, True):
                ways = [count(name, precision, adapters, way) for way in (False, True)[: 2 - options.no_graph]]
                counts[name, precision, adapters] = ways
                cells = [f"{one.kernels} ({one.casts})" for one in ways]
                table.add_row(name.rpartition("/")[2], precision, "adapters" if adapters else "all", *cells)
    Console(width=100).print(table)
    return counts


if __name__ == "__main__":
    main()
