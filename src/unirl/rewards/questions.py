"""The questions reward: how many of all the questions about an image the model answers correctly."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from unirl.errors import UserError
from unirl.rewards.attribute import Attribute
from unirl.rewards.base import Reward, check_not_blank, reaches
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import ModelReward
from unirl.types import Answers, Example, Images, Question
from unirl.unicode import normalize_text


class Questions(ModelReward):
    """The mean score of all questions about an image, in [0, 1].

    A question with choices scores the model's own probability of the correct choice: of saying exactly this, end of
    text included, given that one of the choices is said. It is a soft self-reward and reads no sampled answer. It is
    not normalized by length, because a normalized one would be no probability of the model.

    An open question scores the answer that was sampled, as `Attribute` or `Keyword` does.

    A question whose requirement does not hold scores 0, whatever is answered. A question with choices holds where its
    score is 0.5 or more, an open one where its answer is accepted.

    Args:
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        aggregate: "mean" is the mean over the questions. "geometric" is their geometric mean, which is low where a
            single answer is wrong, and 0 where a score is 0.
        open_questions: The reward that scores open questions.
        accept_threshold: Least score of an accepted sample. With the default, one clear mistake in five is too many.
            None gives no verdict.

    Raises:
        UserError: an option has another value than those above.

    Source: Hu et al. 2023 (TIFA, arXiv 2303.11897) for questions with choices; Cho et al. 2023 (DSG, arXiv 2310.18235)
    for requirements.

    Example:
        >>> from unirl.testing import TinyBackbone
        >>> from unirl.types import Question
        >>> backbone, reward = TinyBackbone(), Questions()
        >>> backbone.build()
        >>> reward.attach(backbone)
        >>> cup = Question("is there a cup", "yes", choices=("yes", "no"))
        >>> questions = cup, Question("which color", "red", requires=(0,))
        >>> answers = backbone.tokenize_answers(["yes", "a red cup"])
        >>> images = Images(torch.zeros(1, 4, dtype=torch.long))
        >>> 0 < reward.score([Example("a red cup", questions=questions)], images, answers).item() < 1
        True
    """

    all_questions = True

    def __init__(
        self,
        weight: float = 1.0,
        standardize: bool = False,
        aggregate: Literal["mean", "geometric"] = "mean",
        open_questions: Literal["attribute", "keyword"] = "attribute",
        accept_threshold: float | None = 0.8,
    ) -> None:
        super().__init__(weight, standardize)
        for name, value, allowed in (
            ("aggregate", aggregate, ("mean", "geometric")),
            ("open_questions", open_questions, ("attribute", "keyword")),
        ):
            if value not in allowed:
                raise UserError(f"questions: {name} is {value!r}; it must be one of {', '.join(allowed)}")
        self.aggregate, self.accept_threshold = aggregate, accept_threshold
        self._open: Reward = Attribute() if open_questions == "attribute" else Keyword()

    @override
    def check_example(self, example: Example) -> None:
        for index, asked in enumerate(_one_question_each(example)):
            try:
                check_not_blank(asked, "question", "answer")
                if not example.questions[index].choices:
                    self._open.check_example(asked)
            except UserError as error:
                raise UserError(f"questions[{index}]: {error}" if len(example.questions) > 1 else str(error)) from error

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The mean over the questions about each image.

        Shapes:
            answers B x k rows; returns (B,), float32.

        Raises:
            UserError: the correct answer to an open question has nothing that an answer could be compared with.
        """
        k, device = len(answers) // len(examples), answers.ids.device
        scores = torch.zeros(len(answers), dtype=torch.float32, device=device)
        holds = torch.zeros(len(answers), dtype=torch.bool, device=device)
        if rows := _rows(examples, k, has_choices=False):
            index = torch.tensor(rows, device=device)
            scores[index], holds[index] = self._score_open(examples, images, answers[index])
        if rows := _rows(examples, k, has_choices=True):
            index = torch.tensor(rows, device=device)
            scores[index] = self._choice_probabilities(examples, images)
            holds[index] = reaches(scores[index], 0.5)
        scores = torch.where(_requirements_hold(examples, holds.view(-1, k)), scores.view(-1, k), 0.0)
        counts = torch.tensor([len(example.questions) for example in examples], device=device)
        asked = torch.arange(k, device=device) < counts[:, None]
        if self.aggregate == "geometric":
            return (torch.where(asked, scores.log(), 0.0).sum(1) / counts).exp()
        return (scores * asked).sum(1) / counts

    def _score_open(self, examples: Sequence[Example], images: Images, answers: Answers) -> tuple[Tensor, Tensor]:
        """Scores of the answers to all open questions, and whether they are accepted."""
        asked = [
            one
            for example in examples
            for one, question in zip(_one_question_each(example), example.questions, strict=True)
            if not question.choices
        ]
        scores = self._open.score(asked, images, answers)
        accepted = self._open.accepts(asked, scores)
        assert accepted is not None
        return scores, accepted

    def _choice_probabilities(self, examples: Sequence[Example], images: Images) -> Tensor:
        """Probability of the correct choice of each question that has choices.

        As many choices are scored at once as there are images: memory is that of one question about each image.
        """
        size = max(1, len(examples) // max(_count_choices(example) for example in examples))
        parts = [slice(start, start + size) for start in range(0, len(examples), size)]
        return torch.cat([self._score_choices(examples[part], images[part]) for part in parts])

    def _score_choices(self, examples: Sequence[Example], images: Images) -> Tensor:
        longest = max(_count_choices(example) for example in examples)
        if not longest:
            return torch.zeros(0, dtype=torch.float32, device=images.codes.device)
        texts, choices = [], []
        for example in examples:
            pairs = [(question.text, choice) for question in example.questions for choice in question.choices]
            pairs += [(example.question, example.answer)] * (longest - len(pairs))  # equally many rows for each image
            texts += [text for text, _ in pairs]
            choices += [choice for _, choice in pairs]
        targets = self.backbone.tokenize_answers(choices)
        log_probs = (self.backbone.answer_log_probs(images, texts, targets).float() * targets.mask).sum(1)
        probabilities = []
        for example, own in zip(examples, torch.split(log_probs, longest), strict=True):
            closed = [question for question in example.questions if question.choices]
            sizes = [len(question.choices) for question in closed]
            for question, part in zip(closed, torch.split(own[: sum(sizes)], sizes), strict=True):
                probabilities.append(part.softmax(0)[_answer_index(question)])
        return torch.stack(probabilities)


def _one_question_each(example: Example) -> list[Example]:
    """An example for each question, with that one only."""
    if len(example.questions) == 1:
        return [example]
    return [replace(example, question=one.text, answer=one.answer, questions=()) for one in example.questions]


def _rows(examples: Sequence[Example], k: int, has_choices: bool) -> list[int]:
    """Rows of answers to the questions with choices, or to the open ones."""
    return [
        image * k + i
        for image, example in enumerate(examples)
        for i, question in enumerate(example.questions)
        if bool(question.choices) == has_choices
    ]


def _answer_index(question: Question) -> int:
    """Which choice is the correct answer, perhaps in another form of Unicode."""
    return [normalize_text(choice) for choice in question.choices].index(normalize_text(question.answer))


def _count_choices(example: Example) -> int:
    return sum(len(question.choices) for question in example.questions)


def _requirements_hold(examples: Sequence[Example], holds: Tensor) -> Tensor:
    """Whether all that each question requires holds, and all that this requires in turn; (B, k) -> (B, k) bool."""
    requires = torch.zeros(*holds.shape, holds.shape[1], dtype=torch.bool)
    for image, example in enumerate(examples):
        for i, question in enumerate(example.questions):
            requires[image, i, list(question.requires)] = True
    requires, fulfilled = requires.to(holds.device), torch.ones_like(holds)
    for _ in range(holds.shape[1]):  # the longest chain of requirements is no longer
        fulfilled = ~(requires & ~(holds & fulfilled)[:, None]).any(2)
    return fulfilled
