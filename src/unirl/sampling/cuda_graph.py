"""Codes one after another by CUDA graphs: the host launches one graph for a code instead of hundreds of kernels.

The host limits a small model's step: Janus-Pro-1B runs about 500 kernels for a code, and a GPU has finished them before
the host has launched the next ones. A CUDA graph is such a sequence of kernels, captured once and launched as one. It
runs on the same memory every time, so all that a step reads and writes is in buffers that stay: the position is a
tensor, the random numbers are there before the first code, and codes are written where the position says.

Graphs live as long as a rollout. To capture them takes little more than the steps that warm them up, and nothing has to
be watched between rollouts: the optimizer may change the weights, FSDP may move them, autocast may cast them anew, and
the memory of keys and values is free for the loss.

Tests record and replay PyTorch's operators in the place of `CUDACapture`; `benchmarks/cuda_graphs.py` and
`UNIRL_TEST_GPU=1 pytest -k gpu` run it on a GPU.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor

from unirl.sampling.autoregressive import SampledCodes

WARM_UP = 3
"""Runs of a step before it is captured, as in PyTorch's documentation; their codes count like any other."""


class GraphableStep(Protocol):
    """A step of `sample_codes` in parts, each of which runs the same operators on the same memory every time."""

    def next_code(self, embeds: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next embeddings (R, D), codes (B,) and their log-probabilities (B,); embeds (R, D), uniforms (B,)."""
        ...

    def end_line(self, embeds: Tensor) -> Tensor:
        """Embeddings (R, D) of the token that ends a line, after a line's last code (R, D)."""
        ...

    def ends_line(self, index: int) -> bool:
        """Whether a line ends before a code."""
        ...

    def limit_attention(self, token: int) -> int:
        """Choose how much of the buffers attention reads for a token; there is a graph for each such length."""
        ...


class Graph(Protocol):
    """What `CUDACapture` makes: a `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Run the captured kernels again, on the same memory."""
        ...


class CUDACapture:
    """Captures CUDA graphs on a stream of its own.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream, self.pool = device, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function on the stream on which it will be captured."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            function()
        current.wait_stream(self.stream)

    def capture(self, function: Callable[[], None]) -> Graph:
        """Capture a function that has been warmed up. It is not run.

        Raises:
            RuntimeError: it does something that a graph cannot hold, such as waiting for the device.
        """
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),  # where a failed capture must come back to
            torch.cuda.graph(graph, self.pool, self.stream, "thread_local"),  # other threads may use the device
        ):
            function()
        return graph


class _Buffers:
    """The memory of a step, and the step on it.

    Args:
        step: The step.
        start: As in `sample_codes`.
        uniforms: As in `sample_codes`.
    """

    def __init__(self, step: GraphableStep, start: Tensor, uniforms: Tensor) -> None:
        self.step, self.embeds, self.uniforms = step, start.clone(), uniforms
        self.index = torch.zeros(1, dtype=torch.long, device=start.device)
        self.codes = torch.zeros(uniforms.shape, dtype=torch.long, device=start.device)
        self.log_probs = torch.zeros(uniforms.shape, device=start.device, dtype=torch.float32)

    def next_code(self) -> None:
        embeds, code, log_prob = self.step.next_code(self.embeds, self.uniforms.index_select(0, self.index)[0])
        self.codes.index_copy_(0, self.index, code[None])
        self.log_probs.index_copy_(0, self.index, log_prob[None])
        self.embeds.copy_(embeds)
        self.index += 1

    def end_line(self) -> None:
        self.embeds.copy_(self.step.end_line(self.embeds))


class _Graphs:
    """Runs functions: first as they are, then as graphs, or as they are to the end where no graph can be captured."""

    def __init__(self, capture: CUDACapture, on_failure: Callable[[RuntimeError], None]) -> None:
        self.capture, self.on_failure, self.failed = capture, on_failure, False
        self.graphs: dict[Hashable, Graph] = {}
        self.runs: Counter[Hashable] = Counter()

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        if self.runs[key] == WARM_UP and not self.failed:
            self._capture(key, function)
        self.runs[key] += 1
        if key in self.graphs:
            self.graphs[key].replay()
        else:
            self.capture.warm_up(function)

    def _capture(self, key: Hashable, function: Callable[[], None]) -> None:
        try:
            self.graphs[key] = self.capture.capture(function)
        except RuntimeError as error:
            self.failed = True
            self.on_failure(error)


@torch.no_grad()
def sample_codes_by_graphs(
    step: GraphableStep,
    start: Tensor,
    uniforms: Tensor,
    on_failure: Callable[[RuntimeError], None],
) -> SampledCodes:
    """What `sample_codes` does, by CUDA graphs. Nothing in the loop waits for the device but the captures themselves.

    Args:
        step: Must compute on buffers that stay, such as those of `unirl.backbones.LlamaStaticDecoder`.
        start: Embeddings of the token before the first code.
        uniforms: Random numbers in [0, 1), from `sample_uniforms`.
        on_failure: Called if a graph cannot be captured; if it returns, the other codes are sampled without one.

    Shapes:
        start (R, D), uniforms (N, B); R is B, or 2 B with guidance.
    """
    buffers, graphs = _Buffers(step, start, uniforms), _Graphs(CUDACapture(start.device), on_failure)
    token = 0
    for index in range(len(uniforms)):
        if step.ends_line(index):
            graphs.run(("end_line", step.limit_attention(token)), buffers.end_line)
            token += 1
        graphs.run(("next_code", step.limit_attention(token)), buffers.next_code)
        token += 1
    return SampledCodes(buffers.codes.T.contiguous(), buffers.log_probs.T.contiguous())
