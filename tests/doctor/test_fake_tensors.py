"""Programs on fake tensors take the turns that they take on real ones."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from unirl.doctor.fake_tensors import fake_tensors, make_fake


def test_contents_that_follow_from_known_ones_are_known() -> None:
    with fake_tensors():
        ids = torch.tensor([[5, 6, 0], [7, 0, 0]])
        mask = ids != 0
        assert isinstance(mask, FakeTensor)
        assert mask.sum(1).tolist() == [2, 1]
        assert torch.cat((ids, ids + 1))[:, 0].tolist() == [5, 7, 6, 8]
        assert ids[mask].tolist() == [5, 6, 7]
        assert bool((mask.sum() == 3).all())


def test_contents_that_depend_on_weights_count_every_sample() -> None:
    with fake_tensors():
        hidden = nn.Linear(4, 1000)(torch.ones(3, 4))
        accepted = hidden[:, 0] > 0.5
        assert accepted.nonzero().flatten().tolist() == [0, 1, 2]
        assert hidden[accepted].shape == (3, 1000)
        assert hidden.argmax(-1).tolist() == [0, 0, 0]
        assert not bool((hidden.argmax(-1) == 999).any())  # no answer ends


def test_a_mask_that_is_overwritten_through_a_view_is_not_known_any_more() -> None:
    with fake_tensors():
        mask = torch.zeros(3, dtype=torch.bool)
        mask[1:] = nn.Linear(1, 2)(torch.ones(1)) > 0
        assert mask.nonzero().flatten().tolist() == [0, 1, 2]


def test_random_numbers_come_from_their_generator() -> None:
    expected = torch.randint(10, (5,), generator=torch.Generator().manual_seed(3)).tolist()
    with fake_tensors():
        generator = torch.Generator().manual_seed(3)
        assert torch.randint(10, (5,), generator=generator).tolist() == expected


def test_a_module_becomes_fake_with_its_ties_and_flags() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)).to("meta")
    module[1].weight = module[0].weight
    module[1].bias.requires_grad_(False)
    with fake_tensors():
        make_fake(module)
        assert all(isinstance(tensor, FakeTensor) for tensor in module.state_dict().values())
        assert module[1].weight is module[0].weight
        assert [p.requires_grad for p in module[1].parameters()] == [True, False]
        twin = copy.deepcopy(module).requires_grad_(False)
        assert isinstance(twin[0].weight, nn.Parameter)
        assert module.to(torch.bfloat16)[0].weight.dtype == torch.bfloat16
        assert twin[0].weight.dtype == torch.float32


def types_under_autocast(cuda: bool) -> list[torch.dtype]:
    def types(x: Tensor) -> list[torch.dtype]:
        hidden = nn.Linear(8, 8)(x)
        values = (hidden, F.layer_norm(hidden, (8,)), hidden.softmax(-1), hidden.exp(), hidden.sum(), hidden.pow(2))
        return [value.dtype for value in values]

    with fake_tensors(cuda), torch.autocast("cpu", torch.bfloat16):
        return types(torch.ones(2, 8))


def test_autocast_computes_in_the_types_of_cuda() -> None:
    assert types_under_autocast(cuda=True) == [torch.bfloat16, *[torch.float32] * 5]
    with torch.autocast("cpu", torch.bfloat16):  # nothing is left behind
        assert F.layer_norm(torch.ones(2, 8).bfloat16(), (8,)).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: UNIRL_TEST_GPU=1 pytest -k gpu")
def test_the_types_are_those_of_a_gpu() -> None:
    with torch.autocast("cuda", torch.bfloat16):
        hidden = nn.Linear(8, 8, device="cuda")(torch.ones(2, 8, device="cuda"))
        values = (hidden, F.layer_norm(hidden, (8,)), hidden.softmax(-1), hidden.exp(), hidden.sum(), hidden.pow(2))
    assert [value.dtype for value in values] == types_under_autocast(cuda=True)
