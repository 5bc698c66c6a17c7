"""The values of a training step. B = prompts x group_size, prompt-major: the samples of a prompt are neighbours.

Where an image is asked several questions, answers have B x k rows, image-major: row r is about image r // k. k is the
largest number of questions of the batch. An image with fewer of them is asked its first one again; the answer is
ignored, with an all-False mask and weight 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from unirl.examples import Example, Item, Question, question_rows

__all__ = [
    "AnswerLabels",
    "AnswerSampling",
    "Answers",
    "CandidateSampling",
    "Candidates",
    "Example",
    "ImageSampling",
    "Images",
    "Item",
    "Question",
    "Rollout",
    "cloned",
    "question_rows",
    "to_device",
]


@dataclass(frozen=True)
class ImageSampling:
    """How images are generated.

    Args:
        steps: Denoising steps of a masked model. Autoregressive models ignore it.
        guidance: Classifier-free guidance w in `(1 + w) * conditional - w * unconditional`. 0 switches it off, which
            halves the cost.
        temperature: Divides the logits of image codes before sampling. 0 takes the most likely code, where the backbone
            supports it.
        confidence_noise: Initial scale of the Gumbel noise on the confidences of a masked model; it decides how random
            the order is in which codes are fixed. Autoregressive models ignore it.

    Example:
        >>> ImageSampling(guidance=2.0).steps
        16
    """

    steps: int = 16
    guidance: float = 0.0
    temperature: float = 1.0
    confidence_noise: float = 1.0


@dataclass(frozen=True)
class AnswerSampling:
    """How questions are answered.

    Args:
        max_tokens: Maximum length of an answer in tokens, the end-of-text token included.
        temperature: Divides the logits before sampling. 0 decodes greedily.

    Example:
        >>> AnswerSampling(max_tokens=8).temperature
        0.0
    """

    max_tokens: int = 16
    temperature: float = 0.0


@dataclass(frozen=True)
class Images:
    """A batch of images: generated ones, or given ones that the model is asked about.

    Args:
        codes: Image codes of the tokenizer. N is 0 for given images that the model sees as pixels.
        pixels: Decoded images in [0, 1]. None until a reward, the judge or a logger needs them.
        actions: The sampled decisions, one image code each, in the order of sampling. None for given images.
        log_probs: Log-probability of each decision when it was sampled, in nats. None for given images.
        memory: What the sampler stores so that the same decisions can be scored later. First dimension B.
        soft: Straight-through codes: one-hot in the forward pass, the gradient of a softmax in the backward pass.

    Shapes:
        codes (B, N), pixels (B, 3, H, W), actions and log_probs (B, A), soft (B, N, K).

    Example:
        >>> images = Images(codes=torch.tensor([[1, 2], [3, 4], [5, 6]]))
        >>> len(images), images[torch.tensor([True, False, True])].codes.tolist()
        (3, [[1, 2], [5, 6]])
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
        """A subset of the images.

        Args:
            rows: A slice, indices, or a boolean mask over B.
        """
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "memory"}
        selected: dict[str, Any] = {name: None if value is None else value[rows] for name, value in tensors.items()}
        return Images(**selected, memory={name: value[rows] for name, value in self.memory.items()})


@dataclass(frozen=True)
class Answers:
    """A batch of answers, as tokens and as text.

    Args:
        ids: Token ids, padded on the right. The end-of-text token is included if it was sampled.
        mask: True for tokens of the answer, False for padding.
        text: The decoded answers.
        log_probs: Log-probability of each token when it was sampled, in nats. None for given answers.

    Shapes:
        ids, mask and log_probs (B, T); text has B entries.

    Example:
        >>> answers = Answers(torch.tensor([[5, 0], [6, 7]]), torch.tensor([[True, False], [True, True]]), ["a", "b c"])
        >>> answers[1:].text
        ['b c']
    """

    ids: Tensor
    mask: Tensor
    text: Sequence[str]
    log_probs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor | slice) -> "Answers":
        """A subset of the answers.

        Args:
            rows: A slice, indices, or a boolean mask over B.
        """
        every = range(len(self.ids))
        indices = (
            every[rows]
            if isinstance(rows, slice)
            else torch.tensor(every)[torch.as_tensor(rows, device="cpu")].tolist()
        )
        log_probs = None if self.log_probs is None else self.log_probs[rows]
        return Answers(self.ids[rows], self.mask[rows], [self.text[i] for i in indices], log_probs)


@dataclass(frozen=True)
class CandidateSampling:
    """How candidates for the label of an answer are sampled.

    Args:
        num_candidates: Answers sampled to each question.
        temperature: Divides the logits before sampling. 0 decodes greedily.

    Example:
        >>> CandidateSampling(num_candidates=4).temperature
        1.0
    """

    num_candidates: int = 8
    temperature: float = 1.0


@dataclass(frozen=True)
class Candidates:
    """Candidates for the label of each answer of a rollout. R answers have up to C different candidates each.

    Args:
        answers: The first C are about the first answer's question, and so on. Each ends with the end of text.
        mask: True for candidates, False for the padding of answers that have fewer.
        accepted: Which ones the rewards accept.

    Shapes:
        answers has R x C rows; mask and accepted (R, C) bool.

    Example:
        >>> ids = torch.tensor([[5, 0], [6, 0]])
        >>> accepted = torch.tensor([[True, False]])
        >>> candidates = Candidates(Answers(ids, ids >= 0, ["left", "right"]), torch.ones(1, 2) > 0, accepted)
        >>> len(candidates.answers), tuple(candidates.mask.shape)
        (2, (1, 2))
    """

    answers: Answers
    mask: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class AnswerLabels:
    """The answers that understanding learns, one in the place of each answer of a rollout.

    Args:
        answers: R answers.
        weights: Weight of each in the loss, or whether it is trained. None trains all alike.

    Shapes:
        answers has R rows; weights (R,).

    Example:
        >>> ids = torch.tensor([[5, 0]])
        >>> AnswerLabels(Answers(ids, ids >= 0, ["left"]), torch.tensor([1.0])).answers.text
        ['left']
    """

    answers: Answers
    weights: Tensor | None = None


@dataclass(frozen=True)
class Rollout:
    """A batch of scored samples, which an update rule turns into a loss. B = prompts x group_size, prompt-major.

    Args:
        examples: The example of each sample; each prompt is repeated `group_size` times.
        images: The generated images.
        answers: The model's answers about them, B x k rows, see `question_rows`.
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
        loss_batch_size: Most samples that are scored at once. None scores all.
        micro_batch: First and last sample, that one excluded, which the loss scores now. None scores all.
        candidates: Candidates for the label of each answer, where the update rule has `candidate_sampling`.
        answer_labels: The answers that understanding learns, where the update rule decides that once for a rollout.
        answer_rollout: Samples that understanding learns from in place of these, where the update rule generated images
            by another model than the policy.

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
    loss_batch_size: int | None = None
    micro_batch: tuple[int, int] | None = None
    candidates: Candidates | None = None
    answer_labels: AnswerLabels | None = None
    answer_rollout: "Rollout | None" = None

    def __len__(self) -> int:
        return len(self.examples)

    def micro_batches(self) -> "list[Rollout]":
        """The rollout once for each `loss_batch_size` samples: the same values, with another `micro_batch` each time.

        Returns:
            The rollout itself where all samples are scored at once.

        Example:
            >>> examples = [Example("a cup", "what is it ?", "a cup", "single_object")] * 3
            >>> images, answers = Images(torch.zeros(3, 1)), Answers(torch.zeros(3, 1), torch.ones(3, 1) > 0, "abc")
            >>> rollout = Rollout(examples, images, answers, torch.zeros(3), {}, torch.ones(3) > 0, group_size=3)
            >>> rollout = replace(rollout, loss_batch_size=2)
            >>> [part.micro_batch for part in rollout.micro_batches()]
            [(0, 2), (2, 3)]
        """
        if self.loss_batch_size is None or self.loss_batch_size >= len(self):
            return [self]
        starts = range(0, len(self), self.loss_batch_size)
        return [replace(self, micro_batch=(i, min(i + self.loss_batch_size, len(self)))) for i in starts]

    @property
    def answer_samples(self) -> "Rollout":
        """The samples that understanding learns from: those of `answer_rollout` if there is one, or these.

        In a micro-batch it has an equal share of them, which may be none.
        """
        if self.answer_rollout is None:
            return self
        if self.micro_batch is None:
            return replace(self.answer_rollout, micro_batch=None)
        start, stop = (end * len(self.answer_rollout) // len(self) for end in self.micro_batch)
        return replace(self.answer_rollout, micro_batch=(start, stop))

    @property
    def rows(self) -> Tensor:
        """Indices of the samples that the loss scores now: those of the `micro_batch`, or all.

        Shapes:
            returns (R,).
        """
        return torch.arange(*(self.micro_batch or (0, len(self))), device=self.scores.device)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each sample."""
        return [example.prompt for example in self.examples]

    @property
    def num_questions(self) -> int:
        """k, the rows of `answers` about each image."""
        return len(self.answers) // max(1, len(self.examples))

    @property
    def questions(self) -> list[str]:
        """The question of each row of `answers`."""
        return [question.text for question in question_rows(self.examples, self.num_questions)]

    @property
    def target_answers(self) -> list[str]:
        """The correct answer of each row of `answers`."""
        return [question.answer for question in question_rows(self.examples, self.num_questions)]

    @property
    def first_answers(self) -> Answers:
        """The answer to the first question about each image, B rows."""
        return self.answers if self.num_questions == 1 else self.answers[:: self.num_questions]

    @property
    def answer_weights(self) -> Tensor:
        """The share of each row of `answers` in what its image counts: 1 / its number of questions, 0 where ignored.

        Shapes:
            returns (B x k,).
        """
        k = self.num_questions
        counts = torch.tensor([min(k, len(example.questions)) for example in self.examples], device=self.scores.device)
        asked = torch.arange(k, device=counts.device) < counts[:, None]
        return (asked.float() / counts[:, None]).flatten()

    def answer_rows(self, rows: Tensor) -> Tensor:
        """Indices of the rows of `answers` about some images.

        Args:
            rows: Indices of the images.

        Shapes:
            rows (R,); returns (R x k,).
        """
        k = self.num_questions
        return (rows[:, None] * k + torch.arange(k, device=rows.device)).flatten()

    def per_answer(self, values: Tensor) -> Tensor:
        """Values of all images, such as weights, for each row of `answers`: times the share of the row.

        Args:
            values: A number for each image.

        Shapes:
            values (B,); returns (B x k,).
        """
        return values.repeat_interleave(self.num_questions) * self.answer_weights

    @property
    def advantage_rewards(self) -> Tensor:
        """The rewards that advantages are computed from.

        Shapes:
            returns (B,).
        """
        return self.scores if self.normalized_rewards is None else self.normalized_rewards

    @property
    def sample_weights(self) -> Tensor:
        """Weight of each sample in the loss.

        Shapes:
            returns (B,).
        """
        return torch.ones_like(self.scores) if self.weights is None else self.weights


# Checkpoints hold the rollout where a run stops between two iterations, and are loaded with `weights_only`.
torch.serialization.add_safe_globals([AnswerLabels, Answers, Candidates, Example, Images, Item, Question, Rollout])

T = TypeVar("T")


def to_device(value: T, device: torch.device) -> T:
    """Move all tensors of a value to a device.

    Args:
        value: A tensor, one of the classes of this module, a dict of tensors, or a list of such dicts.
        device: The target.

    Returns:
        A copy on the device. Other values are returned as they are.

    Example:
        >>> answers = Answers(torch.zeros(1, 2), torch.ones(1, 2), ["a circle"])
        >>> to_device(answers, torch.device("meta")).ids.device.type
        'meta'
    """
    return cast(T, _convert(value, lambda tensor: tensor.to(device)))


def cloned(value: T) -> T:
    """Copy a value with all its tensors and lists, so that plugins can change theirs in place.

    Args:
        value: As for `to_device`.

    Example:
        >>> images = Images(torch.zeros(1, 2), pixels=torch.ones(1, 3, 4, 4))
        >>> _ = cloned(images).pixels.mul_(255)
        >>> images.pixels.max().item()
        1.0
    """
    return cast(T, _convert(value, Tensor.clone))


def _convert(value: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return convert(value)
    if isinstance(value, dict):
        return {name: _convert(inner, convert) for name, inner in value.items()}
    if isinstance(value, list):
        return [_convert(inner, convert) for inner in value]
    if isinstance(value, Images | Answers | Candidates | AnswerLabels | Rollout):
        return replace(value, **{f.name: _convert(getattr(value, f.name), convert) for f in fields(value)})
    return value
