"""Text decoding over shared prefixes, for a batch of continuations of different lengths."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unirl.functional.seeding import multinomial
from unirl.sampling.kv_cache import CachedTransformer, Prefix, extend, pad_right
from unirl.types import AnswerSampling


@torch.no_grad()
def sample_text(
    step: Callable[[Tensor], Tensor],
    first_logits: Tensor,
    sampling: AnswerSampling,
    eos_token_id: int | Sequence[int],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample tokens until every row has reached its end of text, or has `max_tokens`.

    Args:
        step: `(tokens (B,)) -> logits (B, V)` of the next tokens.
        first_logits: Logits of the first token.
        sampling: Longest continuation and temperature.
        eos_token_id: The id that ends a row, or several of them; ended rows are padded with the first.
        generator: The only source of randomness.

    Shapes:
        first_logits (B, V); returns ids, the mask (True up to and including the end) and log-probabilities, (B, T).
    """
    eos_token_ids = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
    ids, masks, log_probs = [], [], []
    logits, unfinished = first_logits, torch.ones(len(first_logits), dtype=torch.bool, device=first_logits.device)
    for position in range(sampling.max_tokens):
        token, log_prob = _sample_token(logits.float(), sampling.temperature, generator)
        token = torch.where(unfinished, token, eos_token_ids[0])
        ids.append(token)
        masks.append(unfinished)
        log_probs.append(log_prob * unfinished)
        for end in eos_token_ids:
            unfinished = unfinished & (token != end)
        if position + 1 == sampling.max_tokens or not unfinished.any():
            break
        logits = step(token)
    return torch.stack(ids, 1), torch.stack(masks, 1), torch.stack(log_probs, 1)


def _sample_token(logits: Tensor, temperature: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One token of each row and its log-probability; temperature 0 takes the most likely, scored at temperature 1."""
    log_probs = (logits / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        best = log_probs.max(-1)
        return best.indices, best.values
    token = multinomial(log_probs.exp(), generator)
    return token, log_probs.gather(1, token.unsqueeze(1)).squeeze(1)


class TextModel(CachedTransformer, Protocol):
    """A transformer that reads and writes text."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of tokens (...)."""
        ...

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of the next token."""
        ...


def sample_answers(
    model: TextModel,
    prefix: Prefix,
    questions: Sequence[Sequence[int]],
    sampling: AnswerSampling,
    eos_token_id: int | Sequence[int],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample an answer to each question.

    Args:
        model: The model that answers.
        prefix: What each question is about, one row for each question; its cache must grow.
        questions: Token ids.
        sampling: Longest answer and temperature.
        eos_token_id: As in `sample_text`.
        generator: The only source of randomness.

    Shapes:
        returns ids, mask and log-probabilities, each (B, T); see `sample_text`.
    """
    hidden, mask = _read(model, prefix, questions)
    length = mask.sum(1)
    last = hidden[torch.arange(len(hidden), device=hidden.device), length - 1]
    step = _decode_step(model, prefix, torch.cat((prefix.mask, mask), dim=1), prefix.next_positions + length)
    return sample_text(step, model.text_logits(last), sampling, eos_token_id, generator)


def answer_log_probs(
    model: TextModel, prefix: Prefix, questions: Sequence[Sequence[int]], ids: Tensor, mask: Tensor
) -> Tensor:
    """Log-probability of each token of given answers, nats, 0 outside the mask; with gradient.

    Args:
        model: The model that answers.
        prefix: What each question is about, one row for each question.
        questions: Token ids.
        ids: Token ids of the answers, right-padded.
        mask: True at the answers' own tokens.

    Shapes:
        ids and mask (B, T); returns (B, T).
    """
    answers = zip(ids.cpu(), mask.cpu(), strict=True)  # all at once: each copy waits for the device
    rows = [[*question, *row[own].tolist()] for question, (row, own) in zip(questions, answers, strict=True)]
    hidden, _ = _read(model, prefix, rows)
    lengths = torch.tensor([len(question) for question in questions], device=ids.device)
    previous = (lengths[:, None] - 1 + torch.arange(ids.shape[1], device=ids.device)).clamp(max=hidden.shape[1] - 1)
    hidden = hidden.gather(1, previous.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    log_probs = model.text_logits(hidden).float().log_softmax(-1)
    return log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1) * mask


def _read(model: TextModel, prefix: Prefix, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Hidden states (B, S, D) of texts after their prefixes, and the mask (B, S) of their padding."""
    ids, mask = (part.to(prefix.mask.device) for part in pad_right(rows))
    return extend(model, prefix, model.embed(ids), mask), mask


def _decode_step(model: TextModel, prefix: Prefix, mask: Tensor, positions: Tensor) -> Callable[[Tensor], Tensor]:
    """A function of the last tokens (B,) that gives the logits of the next ones, and grows the cache."""
    state = {"mask": mask, "positions": positions}

    def step(token: Tensor) -> Tensor:
        new = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
        state["mask"] = torch.cat((state["mask"], new), dim=1)
        attention, positions = state["mask"][:, None, None, :], state["positions"][:, None]
        hidden = model(model.embed(token[:, None]), attention, positions, prefix.cache)
        state["positions"] = state["positions"] + 1
        return model.text_logits(hidden[:, 0])

    return step
