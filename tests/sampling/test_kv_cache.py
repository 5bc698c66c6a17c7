import torch
from torch import Tensor

from unirl.sampling.kv_cache import PrefixCache


def state(batch: int, length: int, value: float) -> Tensor:
    """Keys of 2 heads and 4 channels; row b holds value + b."""
    return (value + torch.arange(batch).view(-1, 1, 1, 1)).expand(batch, 2, length, 4).clone()


def test_growing_appends_to_each_layer_on_its_own() -> None:
    cache = PrefixCache(grow=True)
    assert cache.get_seq_length() == 0
    for layer in range(2):
        key, value = cache.update(state(3, 5, 10.0 * layer), state(3, 5, -10.0 * layer), layer)
        assert key.shape == value.shape == (3, 2, 5, 4)
    key, value = cache.update(state(3, 1, 100.0), state(3, 1, 200.0), 1)
    assert key[0, 0, :, 0].tolist() == [10.0] * 5 + [100.0]
    assert value[1, 1, :, 3].tolist() == [-9.0] * 5 + [201.0]
    assert (cache.get_seq_length(0), cache.get_seq_length(1)) == (5, 6)


def test_a_fixed_prefix_drops_new_keys_and_values() -> None:
    cache = PrefixCache([state(2, 3, 0.0)], [state(2, 3, 5.0)])
    for new in (7.0, 8.0):
        key, value = cache.update(state(2, 2, new), state(2, 2, new), 0)
        assert key[0, 0, :, 0].tolist() == [0.0] * 3 + [new] * 2
        assert value[0, 0, :, 0].tolist() == [5.0] * 3 + [new] * 2
        assert cache.get_seq_length() == 3


def test_rows_are_chosen_and_repeated() -> None:
    cache = PrefixCache([state(3, 2, 0.0)], [state(3, 2, 10.0)])
    chosen = cache.select(torch.tensor([2, 2, 0, 1]), grow=True)
    assert chosen.keys[0][:, 0, 0, 0].tolist() == [2, 2, 0, 1]
    assert chosen.values[0][:, 0, 0, 0].tolist() == [12, 12, 10, 11]
    chosen.update(state(4, 1, 0.0), state(4, 1, 0.0), 0)
    assert (chosen.get_seq_length(), cache.get_seq_length()) == (3, 2)


def test_gradient_flows_through_shared_rows() -> None:
    prefix = state(2, 1, 1.0).requires_grad_()
    cache = PrefixCache([prefix], [prefix]).select(torch.tensor([0, 0, 1]))
    key, _ = cache.update(state(3, 1, 0.0), state(3, 1, 0.0), 0)
    (gradient,) = torch.autograd.grad(key.sum(), prefix)
    assert gradient[:, 0, 0, 0].tolist() == [2, 1]
