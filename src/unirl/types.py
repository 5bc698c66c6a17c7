"""The values of a training step. B = prompts x group_size, prompt-major: the samples of a prompt are neighbours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Item:
    """A kind of object that an image must show, or must not show: an entry of GenEval's `include` or `exclude`.

    Args:
        name: Class of the object, in the singular, such as "circle".
        count: Number of objects of this class.
        color: Color of all of them. None allows any color.
        relation: `(relation, index)`: where it is as seen from the item number `index`, which comes earlier in the
            list. The relation is "left of", "right of", "above" or "below".

    Example:
        >>> dog, cup = Item("dog"), Item("cup", color="red", relation=("left of", 0))  # a red cup left of a dog
        >>> Example("a red cup left of a dog", "Where is the cup?", "left", "position", (dog, cup)).objects[1].name
        'cup'
    """

    name: str
    count: int = 1
    color: str | None = None
    relation: tuple[str, int] | None = None


@dataclass(frozen=True)
class Example:
    """A prompt, a question about the generated image, and the answer that is correct if the image is.

    Rewards score text against `answer` and `objects`. Judges decide by `objects` and `exclude`.

    Args:
        prompt: Prompt of the image.
        question: Question about the image.
        answer: Correct answer about a correct image.
        category: Name under which results are reported, such as "counting".
        objects: What the image must show.
        exclude: What the image must not show: `count` or more objects of the class make it wrong.

    Example:
        >>> example = Example(
        ...     "a photo of two cups", "How many cups are in the picture?", "two cups", "counting",
        ...     objects=(Item("cup", 2),), exclude=(Item("cup", 3),),
        ... )
        >>> example.objects[0].count
        2
    """

    prompt: str
    question: str
    answer: str
    category: str
    objects: tuple[Item, ...] = ()
    exclude: tuple[Item, ...] = ()


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
class Rollout:
    """A batch of scored samples, which an update rule turns into a loss. B = prompts x group_size, prompt-major.

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
        loss_batch_size: Most samples that are scored at once. None scores all.
        micro_batch: First and last sample, that one excluded, which the loss scores now. None scores all.

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
    def questions(self) -> list[str]:
        """The question about each sample."""
        return [example.question for example in self.examples]

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
torch.serialization.add_safe_globals([Answers, Example, Images, Item, Rollout])

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
    return cast(T, _to_device(value, device))


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
