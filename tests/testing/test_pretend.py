"""The pretend accelerator refuses, allows and counts what CUDA does."""

import copy
import io
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unirl.testing.pretend import PretendAccelerator, is_supported, pretend_accelerator

pytestmark = pytest.mark.skipif(not is_supported(), reason="this PyTorch has no Python backend for PrivateUse1")


@pytest.fixture
def accelerator() -> Iterator[PretendAccelerator]:
    with pretend_accelerator() as accelerator:
        yield accelerator


MEETINGS: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda x: x + torch.ones(3),
    "add, reversed": lambda x: torch.ones(3) + x,
    "cat": lambda x: torch.cat((x, torch.ones(3))),
    "stack": lambda x: torch.stack((x[0], torch.tensor(1.0))),
    "linear": lambda x: nn.functional.linear(x, torch.ones(2, 3)),
    "embedding": lambda x: nn.Embedding(4, 2)(x.long()),
    "gather by an index on the CPU": lambda x: x.gather(0, torch.tensor([1])),
    "index_select by a scalar on the CPU": lambda x: x.index_select(0, torch.tensor(1)),
    "an index on the device for a tensor on the CPU": lambda x: torch.ones(3)[x.long()],
    "in place into a tensor on the CPU": lambda x: torch.ones(3).add_(x),
    "in place into a scalar on the CPU": lambda x: torch.tensor(1.0).add_(x[0]),
    "assigned values on the CPU": lambda x: x.__setitem__(torch.tensor([0, 1]), torch.ones(2)),
    "a function of a list": lambda x: torch.nn.functional.cross_entropy(x[None], torch.tensor([0])),
}


@pytest.mark.parametrize("case", MEETINGS)
def test_operands_of_two_devices_raise(case: str, accelerator: PretendAccelerator) -> None:
    with pytest.raises(RuntimeError, match=r"two devices, pretend:0 and cpu"):
        MEETINGS[case](torch.ones(3, device=accelerator.device))


def test_generators_belong_to_a_device(accelerator: PretendAccelerator) -> None:
    device = accelerator.device
    with pytest.raises(RuntimeError, match="Expected a 'pretend' device type for generator but found 'cpu'"):
        torch.rand(2, device=device, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'pretend'"):
        torch.ones(2).multinomial(1, generator=torch.Generator(device))
    generator = torch.Generator(device).manual_seed(3)
    first = torch.rand(2, device=device, generator=generator)
    assert isinstance(generator, torch.Generator)
    assert generator.device == device
    again = torch.Generator(generator.device)
    again.set_state(torch.Generator(device).manual_seed(3).get_state())
    assert torch.rand(2, device=device, generator=again).tolist() == first.tolist()


def test_numpy_needs_a_copy(accelerator: PretendAccelerator) -> None:
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu\(\) to copy"):
        torch.ones(3, device=accelerator.device).numpy()


Counted = tuple[Callable[[Tensor], Any], int, int]
WAITS: dict[str, Counted] = {  # synchronizations and copies of each
    "item": (lambda x: x[0].item(), 1, 0),
    "float": (lambda x: float(x[0]), 1, 0),
    "bool": (lambda x: bool((x > 0).any()), 1, 0),
    "if": (lambda x: 1 if x[1] else 0, 1, 0),
    "tolist": (lambda x: x.tolist(), 1, 0),
    "cpu": (lambda x: x.cpu(), 1, 0),
    "to the CPU by copy_": (lambda x: torch.empty(3).copy_(x), 1, 0),
    "nonzero": (lambda x: x.nonzero(), 1, 0),
    "where with one argument": (lambda x: torch.where(x > 0), 1, 0),
    "a mask as index": (lambda x: x[x > 0], 1, 0),
    "masked_select": (lambda x: x.masked_select(x > 0), 1, 0),
    "values assigned by a mask": (lambda x: x.__setitem__(x > 0, x[:2].clone()), 1, 0),
    "unique": (lambda x: x.unique(), 1, 0),
    "equal": (lambda x: torch.equal(x, x), 1, 0),
    "repeat_interleave by a tensor": (lambda x: x.repeat_interleave(x.long()), 1, 0),
    "a number as index": (lambda x: [1, 2, 3][x[0].long()], 1, 0),
    "isin many": (lambda x: torch.isin(x, torch.arange(50.0, device=x.device)), 1, 0),
    "tensor": (lambda x: torch.tensor([1.0], device=x.device), 0, 1),
    "as_tensor": (lambda x: torch.as_tensor([1.0], device=x.device), 0, 1),
    "new_tensor": (lambda x: x.new_tensor([1.0]), 0, 1),
    "to the device": (lambda x: torch.ones(3).to(x.device), 0, 1),
    "to the device by copy_": (lambda x: x.copy_(torch.ones(3)), 0, 1),
    "an index on the CPU": (lambda x: x[torch.tensor([0, 1])], 0, 1),
    "a list as index": (lambda x: x[[0, 1]] + x[None][:, [1, 2]], 0, 2),
    "values assigned by a list": (lambda x: x.__setitem__([0, 1], 3.0), 0, 1),
    "a mask on the CPU": (lambda x: x[torch.tensor([True, False, True])], 0, 1),
    "scalars on the CPU": (lambda x: x * torch.tensor(2.0) + 1.0, 0, 0),
    "where": (lambda x: torch.where(x > 0, x, 0.0), 0, 0),
    "masked_fill": (lambda x: x.masked_fill(x > 0, torch.tensor(1.0)), 0, 0),
    "one value assigned by a mask": (lambda x: x.__setitem__(x > 0, 1.0), 0, 0),
    "slices": (lambda x: x[1:] + x[:-1] + x[0], 0, 0),
    "factories": (lambda x: torch.arange(3, device=x.device) + torch.full((3,), 2, device=x.device), 0, 0),
    "like": (lambda x: torch.zeros_like(x) + x.new_zeros(3), 0, 0),
    "isin few": (lambda x: torch.isin(x, x[:1]), 0, 0),
    "repeat_interleave": (lambda x: x.repeat_interleave(2), 0, 0),
    "to the host without waiting": (lambda x: x.to("cpu", non_blocking=True), 0, 0),
}


@pytest.mark.parametrize("case", WAITS)
def test_waits_are_counted(case: str, accelerator: PretendAccelerator) -> None:
    call, syncs, copies = WAITS[case]
    x = torch.tensor([0.0, 1.0, 2.0], device=accelerator.device)
    with accelerator.count() as counts:
        call(x)
    assert (counts.syncs.total(), counts.copies.total()) == (syncs, copies), counts


def test_the_line_that_waits_is_named(accelerator: PretendAccelerator) -> None:
    with accelerator.count() as counts:
        nn.ReLU()(torch.ones(1, device=accelerator.device)).item()
    (where,) = counts.waits
    assert where.startswith("_local_scalar_dense at ")
    assert "test_pretend.py:" in where


def test_operators_are_counted_without_views(accelerator: PretendAccelerator) -> None:
    x = torch.ones(2, 3, device=accelerator.device)
    with accelerator.count() as counts:
        x.mT.reshape(-1)[1:].view(5, 1).add(1)  # the transposed one is copied
    assert counts.operators == 2


def test_modules_move_as_they_are(accelerator: PretendAccelerator) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    x, before = torch.rand(2, 3), [id(parameter) for parameter in model.parameters()]
    expected = model(x).detach()
    model.to(accelerator.device)
    assert [id(parameter) for parameter in model.parameters()] == before
    assert model[2].weight is model[0].weight
    output = model(x.to(accelerator.device))
    torch.testing.assert_close(output.detach().cpu(), expected)
    output.square().sum().backward()
    copied = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert {str(p.device) for p in [*model.parameters(), *copied.parameters()]} == {"pretend:0"}
    assert not torch.equal(copied[0].weight, model[0].weight)
    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    assert torch.equal(loaded["model"]["0.weight"], model.cpu()[0].weight)


def test_default_devices_and_views_work(accelerator: PretendAccelerator) -> None:
    with accelerator.device:
        x, y = torch.zeros(2, 3), torch.tensor([1.0, 2.0, 3.0])
    x[0] += y
    x[:, 1].fill_(7)
    x.data = x.data + 1
    assert x.tolist() == [[2, 8, 4], [1, 8, 1]]


def test_backward_works_whatever_ran_before() -> None:
    nn.Linear(1, 1)(torch.ones(1)).backward()  # starts the threads of the devices that there are
    with pretend_accelerator() as accelerator:
        weight = torch.ones(2, device=accelerator.device, requires_grad=True)
        (weight * 3).sum().backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [3, 3]


def test_random_states_are_kept() -> None:
    """`fork_rng` takes the process's accelerator, which the pretend one stays."""
    torch.manual_seed(0)
    with pretend_accelerator() as accelerator:
        with torch.random.fork_rng():
            first = torch.rand(2, device=accelerator.device).tolist()
        assert torch.rand(2).tolist() == first
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_stays_behind() -> None:
    generator, before = torch.Generator, torch.__future__.get_swap_module_params_on_conversion()
    with pretend_accelerator() as accelerator:
        reference = weakref.ref(accelerator)
        outlives = torch.ones(2, device=accelerator.device)
    assert torch.Generator is generator
    assert torch.__future__.get_swap_module_params_on_conversion() is before
    assert (outlives + 1).cpu().tolist() == [2, 2]
    del accelerator
    assert reference() is None
