"""Text decoding over a shared prefix, for a batch of continuations of different lengths."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unirl.sampling.kv_cache import Prefix, Rows, follow, pad_right
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


class TextModel(Rows, Protocol):
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
    end: int,
    generator: torch.Generator | None = None,
    ends: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """Continue each question until its answer ends.

    Args:
        model: Answers.
        prefix: What each question is about; must grow.
        questions: Token ids.
        sampling: Length and temperature.
        end: The end-of-text id.
        generator: The only source of randomness.
        ends: Other ids that end an answer.

    Shapes:
        returns ids, mask and log-probabilities, each (B, T); see `sample_text`.
    """
    hidden, keys = _ask(model, prefix, questions)
    length = keys.sum(1)
    last = hidden[torch.arange(len(hidden), device=hidden.device), length - 1]
    step = _next_token(model, prefix, torch.cat((prefix.keys, keys), dim=1), prefix.ends + length)
    return sample_text(step, model.text_logits(last), sampling, end, generator, ends)


def answer_log_probs(
    model: TextModel, prefix: Prefix, questions: Sequence[Sequence[int]], ids: Tensor, mask: Tensor
) -> Tensor:
    """Log-probability of each token of given answers, nats, 0 outside the mask; with gradient.

    Args:
        model: Answers.
        prefix: What each question is about.
        questions: Token ids.
        ids: The answers' tokens.
        mask: Which of them count.

    Shapes:
        ids and mask (B, T); returns (B, T).
    """
    whole = [[*question, *row[keep].tolist()] for question, row, keep in zip(questions, ids, mask, strict=True)]
    hidden, _ = _ask(model, prefix, whole)
    lengths = torch.tensor([len(question) for question in questions], device=ids.device)
    before = (lengths[:, None] - 1 + torch.arange(ids.shape[1], device=ids.device)).clamp(max=hidden.shape[1] - 1)
    hidden = hidden.gather(1, before.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
    log_probs = model.text_logits(hidden).float().log_softmax(-1)
    return log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1) * mask


def _ask(model: TextModel, prefix: Prefix, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Hidden states (B, S, D) of texts after their prefixes, and which rows are no pads (B, S)."""
    ids, keys = (part.to(prefix.keys.device) for part in pad_right(rows, 0))
    return follow(model, prefix, model.embed(ids), keys), keys


def _next_token(model: TextModel, prefix: Prefix, seen: Tensor, position: Tensor) -> Callable[[Tensor], Tensor]:
    """The next token's logits, given the token just drawn; remembers what went before."""
    state = {"seen": seen, "position": position}

    def step(token: Tensor) -> Tensor:
        itself = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
        state["seen"] = torch.cat((state["seen"], itself), dim=1)
        mask, positions = state["seen"][:, None, None, :], state["position"][:, None]
        hidden = model(model.embed(token[:, None]), mask, positions, prefix.cache)
        state["position"] = state["position"] + 1
        return model.text_logits(hidden[:, 0])

    return step
