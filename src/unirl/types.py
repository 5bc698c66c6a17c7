"""The values of a training step. B = prompts x group_size, prompt-major: the samples of a prompt are neighbours.

Where an image is asked several questions, answers have B x k rows, image-major: row r is about image r // k. k is the
largest number of questions of the batch. An image with fewer of them is asked its first one again; the answer is
ignored, with an all-False mask and weight 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor

from unirl.errors import UserError


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
class Question:
    """A question about an image, and the answer that is correct if the image is.

    Args:
        text: The question.
        answer: The correct answer.
        choices: All answers that are possible, the correct one among them. Empty for an open question.
        requires: Indices of the questions of the example that must be answered correctly first: where there is no cup,
            no color of it is correct.

    Example:
        >>> Question("What color is the cup?", "red", choices=("red", "blue", "green"), requires=(0,)).answer
        'red'
    """

    text: str
    answer: str
    choices: tuple[str, ...] = ()
    requires: tuple[int, ...] = ()
    _derived: ClassVar[bool] = False


@dataclass(frozen=True)
class Example:
    """A prompt, questions about the generated image, and the answers that are correct if the image is.

    Most examples have one question: give `question` and `answer`. Or give `questions`, whose first is the main one: it
    is also `question` and `answer`. Either way, `questions` has all of them.

    Rewards score text against the answers and `objects`. Judges decide by `objects` and `exclude`.

    Args:
        prompt: Prompt of the image.
        question: Question about the image.
        answer: Correct answer about a correct image.
        category: Name under which results are reported, such as "counting".
        objects: What the image must show.
        exclude: What the image must not show: `count` or more objects of the class make it wrong.
        questions: All questions about the image.

    Raises:
        UserError: a question of `questions` has an empty text, choices without the correct answer, or a requirement
            that cannot be met; or `question` and `answer` are not those of the first one.

    Example:
        >>> example = Example(
        ...     "a photo of two cups", "How many cups are in the picture?", "two cups", "counting",
        ...     objects=(Item("cup", 2),), exclude=(Item("cup", 3),),
        ... )
        >>> example.objects[0].count, example.questions
        (2, (Question(text='How many cups are in the picture?', answer='two cups', choices=(), requires=()),))
        >>> questions = Question("Is there a cup?", "yes"), Question("Which color is it?", "red", requires=(0,))
        >>> Example("a photo of a red cup", category="colors", questions=questions).answer
        'yes'
    """

    prompt: str
    question: str = ""
    answer: str = ""
    category: str = "prompts"
    objects: tuple[Item, ...] = ()
    exclude: tuple[Item, ...] = ()
    questions: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        # `dataclasses.replace` gives all fields: a question that was made from the others is made anew.
        if not self.questions or (len(self.questions) == 1 and self.questions[0]._derived):
            question = Question(self.question, self.answer)
            object.__setattr__(question, "_derived", True)
            object.__setattr__(self, "questions", (question,))
            return
        problem = _find_invalid_question(self.questions) or self._find_mismatch()
        if problem is not None:
            raise UserError(f"prompt {self.prompt!r}: {problem}")
        object.__setattr__(self, "question", self.questions[0].text)
        object.__setattr__(self, "answer", self.questions[0].answer)

    def _find_mismatch(self) -> str | None:
        given, first = (self.question, self.answer), (self.questions[0].text, self.questions[0].answer)
        if given in (("", ""), first):
            return None
        return (
            f"'question' and 'answer' are {given[0]!r} and {given[1]!r}, and questions[0] has {first[0]!r} and "
            f"{first[1]!r}; leave the first two out, or give the same"
        )


def _find_invalid_question(questions: Sequence[Question]) -> str | None:
    """What is wrong with a set of questions, if anything."""
    problems = (
        f"questions[{index}] {problem}"
        for index, question in enumerate(questions)
        for problem in (_find_invalid_text(question), _find_invalid_requirement(question, index, len(questions)))
        if problem is not None
    )
    return next(problems, None) or _find_circle(questions)


def _find_invalid_text(question: Question) -> str | None:
    for name, text in (("text", question.text), ("answer", question.answer)):
        if not text.strip():
            return f"has an empty {name} ({text!r}); write one"
    choices = question.choices
    if any(not choice.strip() for choice in choices):
        return f"has an empty choice in {list(choices)}; remove it"
    if len(set(choices)) < len(choices):
        return f"has a choice twice in {list(choices)}; keep one of them"
    if choices and question.answer not in choices:
        return f"has the answer {question.answer!r}, which is not among its choices {list(choices)}; add it to them"
    if len(choices) == 1:
        return f"has the one choice {choices[0]!r}; give two or more, or none for an open question"
    return None


def _find_invalid_requirement(question: Question, index: int, count: int) -> str | None:
    for required in question.requires:
        if required == index:
            return f"requires itself ({required}); remove that"
        if not 0 <= required < count:
            return f"requires question {required}, and there are {count}, numbered from 0; take one of 0 to {count - 1}"
    return None


def _find_circle(questions: Sequence[Question]) -> str | None:
    try:
        list(TopologicalSorter({i: question.requires for i, question in enumerate(questions)}).static_order())
    except CycleError as error:
        circle = " -> ".join(str(index) for index in error.args[1])
        return f"questions require each other in a circle ({circle}); remove one of these requirements"
    return None


def question_rows(examples: Sequence[Example], num_questions: int | None = None) -> list[Question]:
    """The question of each of B x k rows, image-major; the first one again where an example has fewer than k.

    Args:
        examples: B examples.
        num_questions: k. Defaults to the largest number of questions of an example.

    Example:
        >>> two = Example("a cup", questions=(Question("is there a cup ?", "yes"), Question("how many ?", "one")))
        >>> [question.answer for question in question_rows([two, Example("a ring", "what is it ?", "ring")])]
        ['yes', 'one', 'ring', 'ring']
    """
    k = max((len(example.questions) for example in examples), default=1) if num_questions is None else num_questions
    return [e.questions[i] if i < len(e.questions) else e.questions[0] for e in examples for i in range(k)]


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
    return cast(T, _to_device(value, device))


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _to_device(inner, device) for name, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_to_device(inner, device) for inner in value]
    if isinstance(value, Images | Answers | Candidates | AnswerLabels | Rollout):
        return replace(value, **{f.name: _to_device(getattr(value, f.name), device) for f in fields(value)})
    return value
