"""The values that travel through a training step. B = prompts x group, prompt-major."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One kind of thing a picture must show: GenEval's `include` entry.

    Args:
        name: Class of the thing, singular, such as "circle".
        count: How many of it.
        color: Its color, or None where any will do.
        relation: `(relation, index)`: it stands "left of", "right of", "above" or "below" the earlier item `index`.
    """

    name: str
    count: int = 1
    color: str | None = None
    relation: tuple[str, int] | None = None


@dataclass(frozen=True)
class Example:
    """A prompt with a question about the picture, the right answer, and the structure that decides.

    Args:
        prompt: What to draw.
        question: What to ask about the drawing.
        answer: The answer if the drawing is right.
        category: Where it counts in tables, such as "counting".
        objects: What the picture must show.
        exclude: What it must not show: `count` or more of the class make it wrong.
    """

    prompt: str
    question: str
    answer: str
    category: str
    objects: tuple[Item, ...] = ()
    exclude: tuple[Item, ...] = ()


@dataclass(frozen=True)
class ImageSampling:
    """How to draw.

    Args:
        steps: Denoising steps of a masked model; an autoregressive model ignores it.
        guidance: Classifier-free guidance w in `(1 + w) * cond - w * uncond`; 0 switches it off.
        temperature: Divides the logits before sampling.
        confidence_noise: Start of the Gumbel noise on a masked model's confidences.
    """

    steps: int = 16
    guidance: float = 0.0
    temperature: float = 1.0
    confidence_noise: float = 1.0


@dataclass(frozen=True)
class AnswerSampling:
    """How to answer.

    Args:
        max_tokens: Longest answer, in tokens, end-of-text included.
        temperature: 0 answers greedily.
    """

    max_tokens: int = 16
    temperature: float = 0.0


@dataclass(frozen=True)
class Images:
    """What the model drew, or what it was given to look at.

    Args:
        codes: Image codes; none, (B, 0), of a given picture that the model looks at in pixels.
        pixels: The picture in [0, 1], or None until somebody needs it.
        actions: The decisions taken, one code each.
        log_probs: Log-probability of each decision when it was taken, nats.
        memory: Whatever the sampler must remember to score the same decisions again; first dimension B.
        soft: Straight-through codes that carry gradient: one-hot forward, softmax backward.

    Shapes:
        codes (B, N), pixels (B, 3, H, W), actions and log_probs (B, A), soft (B, N, K).
    """

    codes: Tensor
    pixels: Tensor | None = None
    actions: Tensor | None = None
    log_probs: Tensor | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    soft: Tensor | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: Tensor | slice) -> "Images":
        """Some of the pictures: a slice, indices, or a boolean mask over B."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "memory"}
        taken: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return Images(**taken, memory={name: value[rows] for name, value in self.memory.items()})


@dataclass(frozen=True)
class Answers:
    """Answers as tokens and as text.

    Args:
        ids: Token ids, right-padded, end-of-text included where it was reached.
        mask: True at the answer's own tokens.
        text: The same, readable.
        log_probs: Log-probability of each token when it was sampled, nats; None for given answers.

    Shapes:
        ids, mask, log_probs (B, T).
    """

    ids: Tensor
    mask: Tensor
    text: Sequence[str]
    log_probs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor | slice) -> "Answers":
        """Some of the answers: a slice, indices, or a boolean mask over B."""
        keep = torch.arange(len(self.ids), device=self.ids.device)[rows].tolist()
        log_probs = None if self.log_probs is None else self.log_probs[rows]
        return Answers(self.ids[rows], self.mask[rows], [self.text[i] for i in keep], log_probs)


@dataclass(frozen=True)
class Rollout:
    """A batch of scored samples: what an update rule learns from. B = prompts x group_size, prompt-major.

    Args:
        examples: The example of each sample; each prompt is repeated `group_size` times.
        images: The generated images.
        answers: The model's answers about them.
        scores: Weighted sum of all rewards.
        score_parts: The scores of each reward, by name.
        accepted: Which samples the rewards accept as correct.
        group_size: Samples of a prompt.
        normalized_rewards: Scores that are compared within a group in place of `scores`, where a reward asks for
            normalization.
        weights: Weight of each sample in the loss, 0 or more. None weighs all alike.
        old_log_probs: Log-probabilities under the policy that generated the samples, one mapping for each iteration;
            empty where a rollout is used once.
        iteration: Index of the training step on this rollout, from 0.

    Shapes:
        scores, normalized_rewards, weights and each of score_parts (B,); accepted (B,) bool.
    """

    examples: Sequence[Example]
    images: Images
    answers: Answers
    scores: Tensor
    score_parts: Mapping[str, Tensor]
    accepted: Tensor
    group_size: int
    normalized_rewards: Tensor | None = None
    weights: Tensor | None = None
    old_log_probs: Sequence[Mapping[str, Tensor]] = ()
    iteration: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def prompts(self) -> list[str]:
        return [example.prompt for example in self.examples]

    @property
    def questions(self) -> list[str]:
        return [example.question for example in self.examples]

    @property
    def advantage_rewards(self) -> Tensor:
        """The rewards that advantages are computed from. (B,)"""
        return self.scores if self.normalized_rewards is None else self.normalized_rewards

    @property
    def sample_weights(self) -> Tensor:
        """Weight of each sample in the loss. (B,)"""
        return torch.ones_like(self.scores) if self.weights is None else self.weights


# A checkpoint holds the rollout of a run that stopped between two iterations.
torch.serialization.add_safe_globals([Answers, Example, Images, Item, Rollout])

T = TypeVar("T")


def to_device(value: T, device: torch.device) -> T:
    """A value with all its tensors on a device.

    Example:
        >>> answers = Answers(torch.zeros(1, 2), torch.ones(1, 2), ["a circle"])
        >>> to_device(answers, torch.device("meta")).ids.device.type
        'meta'
    """
    result: Any = _to_device(value, device)
    return result


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to_device(inner, device) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_to_device(inner, device) for inner in value]
    if isinstance(value, Images | Answers | Rollout):
        return replace(value, **{f.name: _to_device(getattr(value, f.name), device) for f in fields(value)})
    return value
