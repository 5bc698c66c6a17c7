"""Text decoding over a shared prefix, for a batch of continuations of different lengths."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unirl.types import AnswerSampling


@torch.no_grad()
def sample_text(
    step: Callable[[Tensor], Tensor],
    first: Tensor,
    sampling: AnswerSampling,
    end: int,
    generator: torch.Generator | None = None,
    ends: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Continue until every row has said `end`, or `max_tokens` are drawn.

    Args:
        step: Takes the tokens just drawn (B,), gives the logits of the next ones (B, V).
        first: Logits of the first token.
        sampling: Length and temperature.
        end: The end-of-text id; rows that have ended are filled up with it.
        generator: The only source of randomness.
        ends: Other ids that end a row, where a checkpoint has several.

    Shapes:
        first (B, V); returns ids, mask (True up to and including `end`) and log-probabilities, each (B, T).
    """
    ids, masks, log_probs = [], [], []
    logits, alive = first, torch.ones(len(first), dtype=torch.bool, device=first.device)
    for position in range(sampling.max_tokens):
        token, log_prob = _draw(logits.float(), sampling.temperature, generator)
        token = torch.where(alive, token, end)
        ids.append(token)
        masks.append(alive)
        log_probs.append(log_prob * alive)
        alive = alive & (token != end)
        for other in ends:
            alive = alive & (token != other)
        if position + 1 == sampling.max_tokens or not alive.any():
            break
        logits = step(token)
    return torch.stack(ids, 1), torch.stack(masks, 1), torch.stack(log_probs, 1)


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability; temperature 0 takes the likeliest at temperature 1."""
    log_probs = (logits / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        best = log_probs.max(-1)
        return best.indices, best.values
    token = torch.multinomial(log_probs.exp(), 1, generator=generator)
    return token.squeeze(1), log_probs.gather(1, token).squeeze(1)
