from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unirl.sampling.text import sample_text
from unirl.types import AnswerSampling

END = 0
CHAIN = {3: 4, 4: 5, 5: END, 2: 2, END: 3}
"""A language in which each word has one likely successor: 3 4 5 END, and 2 2 2 without an end."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(calls: list[list[int]]) -> Callable[[Tensor], Tensor]:
    table = torch.zeros(6, 6)
    for word, following in CHAIN.items():
        table[word, following] = 3.0

    def step(token: Tensor) -> Tensor:
        calls.append(token.tolist())
        return table[token]

    return step


def start(*words: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(words), 6) * 3.0


SURE = torch.log(torch.tensor(3.0).exp() / (torch.tensor(3.0).exp() + 5))


def test_greedy_follows_the_chain_and_stops_at_the_end() -> None:
    calls: list[list[int]] = []
    ids, mask, log_probs = sample_text(chain(calls), start(3, 5, END), AnswerSampling(10), END)
    assert ids.tolist() == [[3, 4, 5, END], [5, END, END, END], [END, END, END, END]]
    assert mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    torch.testing.assert_close(log_probs, SURE * mask)
    assert [row[0] for row in calls] == [3, 4, 5]


def test_a_row_without_end_runs_to_the_limit() -> None:
    calls: list[list[int]] = []
    ids, mask, _ = sample_text(chain(calls), start(2, 5), AnswerSampling(3), END)
    assert ids.tolist() == [[2, 2, 2], [5, END, END]]
    assert mask.tolist() == [[True] * 3, [True, True, False]]
    assert len(calls) == 2  # nobody needs the logits after the last token


@pytest.mark.parametrize("seed", range(5))
def test_sampled_rows_end_where_their_mask_ends(seed: int) -> None:
    ids, mask, log_probs = sample_text(chain([]), start(3, 2, 4), AnswerSampling(12, 1.5), END, seeded(seed))
    for row, keep, row_log_probs in zip(ids, mask, log_probs, strict=True):
        length = int(keep.sum())
        assert keep.tolist() == [True] * length + [False] * (len(row) - length)
        assert END not in row[: length - 1].tolist()
        assert length == len(row) or row[length - 1] == END
        assert (row[length:] == END).all()
        assert (row_log_probs[length:] == 0).all()
        assert (row_log_probs[:length] < 0).all()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sampling_frequencies_and_log_probs(temperature: float) -> None:
    logits, count = torch.tensor([0.5, 1.0, -1.0, 0.0]), 40_000
    first = logits.expand(count, -1)
    ids, _, log_probs = sample_text(lambda token: first, first, AnswerSampling(1, temperature), END, seeded())
    expected = (logits / temperature).softmax(0)
    torch.testing.assert_close(ids.flatten().bincount(minlength=4) / count, expected, atol=0.012, rtol=0)
    torch.testing.assert_close(log_probs, expected.log()[ids])


def test_the_generator_is_the_only_randomness() -> None:
    before = torch.get_rng_state()
    sampling, first = AnswerSampling(8, 2.0), start(3, 2)
    runs = [sample_text(chain([]), first, sampling, END, seeded(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1])
    assert runs[0].tolist() != runs[2].tolist()


def test_greedy_is_the_limit_of_low_temperature() -> None:
    greedy = sample_text(chain([]), start(3, 2), AnswerSampling(5), END)
    cold = sample_text(chain([]), start(3, 2), AnswerSampling(5, 0.01), END, seeded())
    assert torch.equal(greedy[0], cold[0])
    assert torch.equal(greedy[1], cold[1])
