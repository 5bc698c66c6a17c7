"""Generating images, answering questions about them and scoring the answers: one place for training and evaluation."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from unirl.backbones import Backbone
from unirl.rewards import Reward
from unirl.rewards.scoring import score
from unirl.training.lengths import LengthWarnings
from unirl.types import (
    Answers,
    AnswerSampling,
    Candidates,
    CandidateSampling,
    Example,
    Images,
    ImageSampling,
    Rollout,
    question_rows,
)
from unirl.updates.answer_labels import distinct_candidates


class Rollouts:
    """Generates images, decodes them where pixels are needed, answers the questions about them, and scores the answers.

    Args:
        backbone: The model; need not be built yet.
        rewards: What scores a sample.
        accept_threshold: As in `RolloutConfig`.
        reward_timeout: Seconds that each reward may take. None sets no limit.
    """

    def __init__(
        self,
        backbone: Backbone,
        rewards: Sequence[Reward],
        accept_threshold: float | None = None,
        reward_timeout: float | None = None,
    ) -> None:
        self.backbone, self.rewards = backbone, list(rewards)
        self.accept_threshold, self.reward_timeout = accept_threshold, reward_timeout
        self.lengths = LengthWarnings(backbone, self.rewards)

    @property
    def needs_pixels(self) -> bool:
        """Whether the backbone or a reward looks at pixels."""
        return self.backbone.understands_pixels or any(reward.needs_pixels for reward in self.rewards)

    @torch.no_grad()
    def sample(
        self,
        examples: Sequence[Example],
        image_sampling: ImageSampling,
        answer_sampling: AnswerSampling,
        image_rng: torch.Generator | None = None,
        answer_rng: torch.Generator | None = None,
        group_size: int = 1,
        decode: bool = False,
        all_questions: bool = True,
    ) -> Rollout:
        """Sample a group of images and answers for each example.

        Args:
            examples: Prompts with questions and correct answers.
            image_sampling: How images are generated.
            answer_sampling: How questions are answered.
            image_rng: The only source of randomness of the images.
            answer_rng: The same of the answers; not needed for greedy ones.
            group_size: Images of each prompt.
            decode: Decode pixels even where neither the backbone nor a reward needs them.
            all_questions: Ask all questions of each example, not only the first, even where no reward reads the others.

        Shapes:
            B = examples x group_size, prompt-major; answers have B x k rows, see `unirl.question_rows`.

        Raises:
            UserError: a reward failed or returned unusable numbers.
        """
        prompts = [example.prompt for example in examples for _ in range(group_size)]
        images = self.backbone.sample_images(prompts, image_sampling, image_rng)
        return self.ask(examples, images, answer_sampling, answer_rng, decode, all_questions)

    @torch.no_grad()
    def ask(
        self,
        examples: Sequence[Example],
        images: Images,
        answer_sampling: AnswerSampling,
        answer_rng: torch.Generator | None = None,
        decode: bool = False,
        all_questions: bool = True,
    ) -> Rollout:
        """Answer the questions about images that are there, and score them.

        Args:
            examples: As for `sample`.
            images: Equally many for each example, prompt-major.
            answer_sampling: As for `sample`.
            answer_rng: As for `sample`.
            decode: As for `sample`.
            all_questions: As for `sample`.

        Raises:
            UserError: a reward failed or returned unusable numbers.
        """
        group_size = len(images) // len(examples)
        examples = [example for example in examples for _ in range(group_size)]
        questions = self._questions(examples, all_questions)
        if decode or self.needs_pixels:
            images = replace(images, pixels=self.backbone.decode(images))
        answers = self.backbone.sample_answers(images, questions, answer_sampling, answer_rng)
        answers = _mask_repeated(answers, examples)
        scored = score(self.rewards, examples, images, answers, self.accept_threshold, self.reward_timeout)
        return Rollout(examples, images, answers, *scored, group_size)

    @torch.no_grad()
    def add_candidates(
        self, rollout: Rollout, sampling: CandidateSampling, max_tokens: int, rng: torch.Generator | None = None
    ) -> Rollout:
        """Add candidates for the label of each answer: the prompt's answer, the model's, and further sampled ones.

        Rewards judge each candidate as they judge an answer. Only here are model and rewards at hand: an update rule
        gets the verdicts, and a reward never meets the rule.

        Args:
            rollout: Its images have pixels where a reward needs them.
            sampling: How candidates are sampled. Answers without text are no candidates.
            max_tokens: Longest candidate, in tokens.
            rng: The only source of randomness.

        Raises:
            UserError: a reward failed or returned unusable numbers.
        """
        texts = [[first, text] for first, text in zip(rollout.target_answers, rollout.answers.text, strict=True)]
        if sampling.num_candidates:
            questions = [question for question in rollout.questions for _ in range(sampling.num_candidates)]
            answer_sampling = AnswerSampling(max_tokens, sampling.temperature)
            sampled = self.backbone.sample_answers(rollout.images, questions, answer_sampling, rng).text
            for i, text in enumerate(sampled):
                texts[i // sampling.num_candidates].append(text)
        answers, mask = distinct_candidates(self.backbone, [[first, *filter(None, more)] for first, *more in texts])
        examples, images, count = _answered_examples(rollout), rollout.images, mask.shape[1]
        if rollout.num_questions > 1:
            rows = torch.arange(len(examples), device=images.codes.device)
            images = images[rows // rollout.num_questions]
        columns = [
            score(self.rewards, examples, images, answers[c::count], self.accept_threshold, self.reward_timeout)[2]
            for c in range(count)
        ]
        return replace(rollout, candidates=Candidates(answers, mask, torch.stack(columns, 1)))

    def _questions(self, examples: Sequence[Example], all_questions: bool) -> list[str]:
        all_questions = all_questions or any(reward.all_questions for reward in self.rewards)
        return [question.text for question in question_rows(examples, None if all_questions else 1)]


def _mask_repeated(answers: Answers, examples: Sequence[Example]) -> Answers:
    """Answers with an empty text and mask where an example has fewer questions than another one."""
    k = len(answers) // len(examples)
    asked = [i < len(example.questions) for example in examples for i in range(k)]
    if all(asked):
        return answers
    mask = answers.mask & torch.tensor(asked, device=answers.mask.device)[:, None]
    log_probs = None if answers.log_probs is None else answers.log_probs * mask
    text = [text if own else "" for text, own in zip(answers.text, asked, strict=True)]
    return Answers(answers.ids, mask, text, log_probs)


def _answered_examples(rollout: Rollout) -> list[Example]:
    """An example for each row of `answers`, with its question only."""
    k = rollout.num_questions
    return [one for example in rollout.examples for one in one_question_each(example, k)]


def one_question_each(example: Example, num_questions: int | None = None) -> list[Example]:
    """An example for each question of an example, without choices: how candidates for its answers are scored.

    Args:
        example: Any example.
        num_questions: Number of questions, where it has fewer the first one again. Defaults to its own.
    """
    fields = (example.category, example.objects, example.exclude)
    questions = question_rows([example], num_questions)
    return [Example(example.prompt, question.text, question.answer, *fields) for question in questions]
