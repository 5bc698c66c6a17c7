"""Adding up the memory of tensors."""

import torch
from torch import nn

from unirl.doctor.tracker import MemoryTracker

KB = 1024


def test_a_tensor_counts_once_as_long_as_anybody_holds_it() -> None:
    with MemoryTracker() as memory:
        tensor = torch.zeros(KB)
        view = tensor[:5].view(5, 1)
        assert memory.live == 4 * KB
        del tensor
        assert memory.live == 4 * KB
        del view
        assert memory.live == 0
    assert memory.peaks == {"run": 4 * KB}


def test_what_autograd_keeps_counts_until_the_backward_pass() -> None:
    weight = nn.Parameter(torch.ones(KB))
    with MemoryTracker() as memory:
        loss = weight.exp().sum()
        assert memory.live == 4 * KB * 2 + 512  # the weight, its exponential for the gradient, the loss
        loss.backward()
        del loss
        assert memory.live == 4 * KB * 2  # the weight and its gradient


def test_each_phase_has_a_peak_of_its_own() -> None:
    with MemoryTracker() as memory:
        kept = torch.zeros(KB)
        assert memory.start("second") == "run"
        torch.zeros(2 * KB)
        memory.start("third")
        assert memory.peaks == {"run": 4 * KB, "second": 12 * KB, "third": 4 * KB}
    del kept


def test_a_storage_that_shrinks_is_freed() -> None:
    with MemoryTracker() as memory:
        tensor = torch.zeros(KB)
        tensor.untyped_storage().resize_(0)
        assert memory.live == 0
        tensor.untyped_storage().resize_(8 * KB)
        assert memory.live == 8 * KB
