"""How a graph is captured, on stand-ins with the signatures of PyTorch. `tests/recorded_graphs.py` runs whole steps."""

from unittest import mock

import pytest
import torch

from unirl.sampling.cuda_graph import CUDACapture

CALLS = ("Stream", "current_stream", "stream", "graph_pool_handle", "CUDAGraph", "graph")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    calls = mock.MagicMock()
    for name in CALLS:
        calls.attach_mock(stand_in := mock.create_autospec(getattr(torch.cuda, name)), name)
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return calls


def test_a_warm_up_runs_on_the_stream_of_the_capture_between_earlier_and_later_work(cuda: mock.Mock) -> None:
    capture, current = CUDACapture(torch.device("cuda")), cuda.current_stream.return_value
    before = len(cuda.mock_calls)
    capture.warm_up(cuda.function)
    stream = cuda.Stream.return_value
    assert cuda.mock_calls[before:] == [
        mock.call.current_stream(torch.device("cuda")),
        mock.call.Stream().wait_stream(current),
        mock.call.stream(stream),
        mock.call.stream().__enter__(),
        mock.call.function(),
        mock.call.stream().__exit__(None, None, None),
        mock.call.current_stream().wait_stream(stream),
    ]


def test_graphs_share_a_pool_and_other_threads_may_use_the_device(cuda: mock.Mock) -> None:
    capture = CUDACapture(torch.device("cuda"))
    graph = capture.capture(cuda.function)
    assert graph is cuda.CUDAGraph.return_value
    settings = mock.call(graph, capture.pool, capture.stream, "thread_local")
    assert cuda.graph.mock_calls[0] == settings
    assert cuda.function.call_count == 1


def test_a_failed_capture_comes_back_to_the_current_stream(cuda: mock.Mock) -> None:
    cuda.function.side_effect = RuntimeError("not permitted")
    cuda.graph.return_value.__exit__.side_effect = RuntimeError("capture invalidated")  # and does not restore it
    with pytest.raises(RuntimeError, match="capture invalidated"):
        CUDACapture(torch.device("cuda")).capture(cuda.function)
    cuda.stream.assert_called_once_with(cuda.current_stream.return_value)
    assert cuda.stream.return_value.__exit__.call_count == 1
