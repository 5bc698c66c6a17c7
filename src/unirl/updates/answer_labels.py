"""Which answers understanding learns: the labels of an update rule's answer loss."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.base import Backbone
from unirl.distributed.collectives import global_masked_mean
from unirl.errors import check_range, check_temperature
from unirl.functional.posterior import candidate_priors, posterior
from unirl.functional.reductions import zero_loss
from unirl.types import AnswerLabels, Answers, Candidates, CandidateSampling, Images, ImageSampling, Rollout
from unirl.updates.base import UpdateRule
from unirl.updates.batching import scoring_batch
from unirl.updates.reference import Reference

ImageSource = Literal["policy", "reference"]
"""The model that generated the images: the one in training, or the untrained one."""
LabelSource = Literal["prompt", "accepted", "self", "posterior"]
"""The prompt's answer about all images, the same about accepted images, the model's own answer, or the candidate of
largest posterior probability."""
Term = tuple[str, Tensor]
"""A task, "image" or "answer", and a term of the loss that trains it: a scalar with gradient."""


@dataclass(frozen=True)
class PosteriorLabels:
    """How `answer_labels: posterior` decides which answer is right about an image.

    The candidates are the prompt's answer, the model's answer in the rollout, and further answers that it samples. The
    probability of each is the model's own likelihood, given the image, times a prior that prefers what the rewards
    accept: the prompt is evidence about an image that was generated from it. The most probable candidate is the label.

    It averages out mistakes of understanding that are not systematic. It needs a generator that is not trained to
    please the same model at the same time, or the two confirm each other's mistakes (docs/method.md).

    Args:
        num_candidates: Answers sampled to each question. 0 samples none.
        candidate_temperature: Divides the logits before they are sampled.
        prior: Probability that the image shows what the rewards accept, shared by the accepted candidates, in (0, 1].
        num_alternatives: Number of other answers that share the rest of the prior, whether they were sampled or not.
        min_posterior: Least probability of a label that is trained, [0, 1].
        model: Whose likelihood counts: "policy", the model in training, or "reference", the untrained model, which
            costs a copy of the weights except with LoRA.
    """

    num_candidates: int = 8
    candidate_temperature: float = 1.0
    prior: float = 0.5
    num_alternatives: int = 5
    min_posterior: float = 0.8
    model: Literal["policy", "reference"] = "policy"


class AnswerLabeler:
    """Labels the answers of rollouts.

    Args:
        owner: Name of the update rule, for messages.
        source: Where labels come from.
        config: Settings of "posterior".
        images: Who generated the images that are asked about.
        images_per_prompt: Images of each prompt of a step, of "reference".

    Raises:
        UserError: a number is out of range.
    """

    def __init__(
        self,
        owner: str,
        source: LabelSource,
        config: PosteriorLabels,
        images: ImageSource = "policy",
        images_per_prompt: int = 1,
    ) -> None:
        check_range(1, 10_000, owner, answer_images_per_prompt=images_per_prompt)
        self.images, self.images_per_prompt = images, images_per_prompt
        owner = f"{owner}.posterior"
        check_range(0, 1000, owner, num_candidates=config.num_candidates)
        check_temperature(f"{owner}: candidate_temperature", config.candidate_temperature)
        check_range(1e-6, 1, owner, prior=config.prior)
        check_range(1, 1_000_000, owner, num_alternatives=config.num_alternatives)
        check_range(0, 1, owner, min_posterior=config.min_posterior)
        self.source, self.config = source, config

    @property
    def needs_reference(self) -> bool:
        """Whether the untrained model is used."""
        return self.images == "reference" or self._reference_likelihoods

    @property
    def _reference_likelihoods(self) -> bool:
        return self.source == "posterior" and self.config.model == "reference"

    @property
    def candidate_sampling(self) -> CandidateSampling | None:
        """As in `UpdateRule`."""
        if self.source != "posterior":
            return None
        return CandidateSampling(self.config.num_candidates, self.config.candidate_temperature)

    def sample_images(
        self,
        backbone: Backbone,
        prompts: Sequence[str],
        sampling: ImageSampling,
        generator: torch.Generator,
        reference: Reference | None,
    ) -> Images | None:
        """As `UpdateRule.sample_answer_images`.

        Args:
            backbone: The model in training.
            prompts: The prompts of the step.
            sampling: How images are generated.
            generator: The only source of randomness.
            reference: The untrained model, where `needs_reference`.
        """
        if self.images == "policy":
            return None
        assert reference is not None, "attach comes first"
        prompts = [prompt for prompt in prompts for _ in range(self.images_per_prompt)]
        with reference.active(backbone) as model:
            return model.sample_images(prompts, sampling, generator)

    def prepare(self, backbone: Backbone, rollout: Rollout, reference: Reference | None = None) -> Rollout:
        """Store the labels that must be decided by the policy that generated; without gradient.

        Args:
            backbone: The model in training.
            rollout: Fresh, with candidates.
            reference: The untrained model, where `needs_reference`.
        """
        if self.source != "posterior":
            return rollout
        samples = rollout.answer_samples
        labels = self._posterior_labels(backbone, samples, reference)
        if samples is rollout:
            return dataclasses.replace(rollout, answer_labels=labels)
        return dataclasses.replace(rollout, answer_rollout=dataclasses.replace(samples, answer_labels=labels))

    def labels(self, backbone: Backbone, rollout: Rollout, reference: Reference | None = None) -> AnswerLabels:
        """The labels of all answers of a rollout.

        Args:
            backbone: The model in training.
            rollout: As `prepare` left it; of another one the labels are decided now.
            reference: As for `prepare`.
        """
        if self.source == "posterior":
            return rollout.answer_labels or self._posterior_labels(backbone, rollout, reference)
        if self.source == "self":
            return AnswerLabels(rollout.answers)
        accepted = rollout.accepted.repeat_interleave(rollout.num_questions) if self.source == "accepted" else None
        return AnswerLabels(prompt_answers(backbone, rollout), accepted)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of `metrics`."""
        return ("answer_labels/frac_trained", "answer_labels/frac_prompt") if self.source == "posterior" else ()

    def metrics(self, rollout: Rollout, labels: AnswerLabels | None) -> dict[str, Tensor]:
        """What to log about labels that are decided by the model: how many are trained, and how many say the prompt's.

        Args:
            rollout: All samples, with a `micro_batch` where some of them are scored: the metrics of all add up.
            labels: Of all its answers; None where no answer is trained now.

        Returns:
            Shares of all answers, under the same names in every step; none for labels that are given.

        Shapes:
            returns scalars in [0, 1].
        """
        if self.source != "posterior":
            return {}
        counts = rollout.scores.new_zeros(2)
        if labels is not None and labels.weights is not None:
            asked, rows = rollout.answer_weights > 0, rollout.answer_rows(rollout.rows)
            texts = zip(labels.answers.text, rollout.target_answers, strict=True)
            is_prompt = torch.tensor([text == target for text, target in texts], device=counts.device)
            trained = (rollout.per_answer(rollout.sample_weights) * labels.weights > 0)[rows]
            counts = torch.stack((trained.sum(), (trained & is_prompt[rows]).sum())) / asked.sum()
        return dict(zip(self.metric_names, counts, strict=True))

    def _posterior_labels(self, backbone: Backbone, rollout: Rollout, reference: Reference | None) -> AnswerLabels:
        config, candidates = self.config, rollout.candidates or _own_and_prompt_answers(backbone, rollout)
        with torch.no_grad():
            log_likelihoods = self._log_likelihoods(backbone, rollout, candidates, reference)
        priors = candidate_priors(candidates.accepted, config.prior, config.num_alternatives, candidates.mask)
        best = posterior(log_likelihoods, priors).max(1)
        rows = torch.arange(len(priors), device=priors.device) * priors.shape[1] + best.indices
        return AnswerLabels(candidates.answers[rows], (best.values >= config.min_posterior).float())

    def _log_likelihoods(
        self, backbone: Backbone, rollout: Rollout, candidates: Candidates, reference: Reference | None
    ) -> Tensor:
        """Log-likelihood (R, C) of each candidate."""
        num_candidates, per_image = candidates.mask.shape[1], len(candidates.answers) // len(rollout)
        questions = [question for question in rollout.questions for _ in range(num_candidates)]
        of_reference = reference if self._reference_likelihoods else None
        assert of_reference is not None or not self._reference_likelihoods, "attach comes first"
        parts = []
        with of_reference.active(backbone) if of_reference else nullcontext(backbone) as model:
            for part in dataclasses.replace(rollout, micro_batch=None).micro_batches():
                start, stop = part.micro_batch or (0, len(rollout))
                rows = slice(start * per_image, stop * per_image)
                images, answers = rollout.images[start:stop], candidates.answers[rows]
                parts.append(model.answer_log_probs(images, questions[rows], answers).sum(1))
        return torch.cat(parts).view(candidates.mask.shape)


class LabeledRule(UpdateRule):
    """An update rule whose answer loss takes its labels from an `AnswerLabeler`, and whose loss is a sum of `terms`.

    Attributes:
        labeler: Where labels come from.
        answer_weight: Weight of the answer loss; where it is 0, nothing is sampled for it.
    """

    labeler: AnswerLabeler
    answer_weight: float
    _reference: Reference | None = None

    @property
    @override
    def candidate_sampling(self) -> CandidateSampling | None:
        return self.labeler.candidate_sampling if self.answer_weight else None

    @property
    def needs_reference(self) -> bool:
        """Whether the untrained model is used."""
        return self.labeler.needs_reference

    @override
    def attach(self, backbone: Backbone) -> None:
        if self.needs_reference:
            self._reference = Reference(backbone)

    @override
    def sample_answer_images(
        self, backbone: Backbone, prompts: Sequence[str], sampling: ImageSampling, generator: torch.Generator
    ) -> Images | None:
        if not self.answer_weight:
            return None
        return self.labeler.sample_images(backbone, prompts, sampling, generator, self._reference)

    @override
    def prepare(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generators: Sequence[torch.Generator]
    ) -> Rollout:
        return self.labeler.prepare(backbone, rollout, self._reference) if self.answer_weight else rollout

    @abstractmethod
    def terms(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[list[Term], dict[str, Tensor]]:
        """The terms of the loss, each with its task, and the metrics. Arguments as for `loss`."""

    @override
    def loss(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms, metrics = self.terms(backbone, rollout, sampling, generator)
        return sum((term for _, term in terms), zero_loss(backbone)), metrics

    @override
    def task_losses(
        self, backbone: Backbone, rollout: Rollout, sampling: ImageSampling, generator: torch.Generator
    ) -> dict[str, Tensor]:
        losses = {"image": zero_loss(backbone), "answer": zero_loss(backbone)}
        for task, term in self.terms(backbone, rollout, sampling, generator)[0]:
            losses[task] = losses[task] + term
        return losses


def label_loss(backbone: Backbone, rollout: Rollout, labels: AnswerLabels) -> Tensor:
    """Cross-entropy of labels about the images as they are, in nats, the mean over tokens on all ranks.

    Args:
        backbone: The model in training.
        rollout: Samples, with a `micro_batch` where some of them are scored.
        labels: Of all its answers.

    Shapes:
        returns a scalar with gradient; 0 where no label is trained.
    """
    answers, trained, weights = labels.answers, labels.weights, rollout.per_answer(rollout.sample_weights)
    if trained is None:
        batch = scoring_batch(backbone, rollout)
    else:
        weights = weights * trained
        batch = scoring_batch(backbone, rollout, (trained != 0).view(len(rollout), -1).any(1))
    total = (answers.mask * weights[:, None])[batch.all_answer_rows].sum()
    answers, weights = answers[batch.answer_rows], weights[batch.answer_rows]
    if not len(batch):
        return global_masked_mean(weights, weights, total)  # 0; collective
    log_probs = backbone.answer_log_probs(batch.images, batch.questions, answers)
    return -global_masked_mean(log_probs, answers.mask * weights[:, None], total)


def prompt_answers(backbone: Backbone, rollout: Rollout) -> Answers:
    """The prompts' answers to all questions.

    Args:
        backbone: Has the tokenizer.
        rollout: B samples with k questions each.

    Shapes:
        returns B x k answers.
    """
    return backbone.tokenize_answers(rollout.target_answers)


def distinct_candidates(backbone: Backbone, texts: Sequence[Sequence[str]]) -> tuple[Answers, Tensor]:
    """Tokenize candidates, each different text once.

    Args:
        backbone: Has the tokenizer.
        texts: At least one candidate for each of R answers.

    Shapes:
        returns R x C answers and the mask (R, C) of those that are no padding; see `Candidates`.

    Example:
        >>> from unirl.testing import TinyBackbone
        >>> backbone = TinyBackbone()
        >>> backbone.build()
        >>> answers, mask = distinct_candidates(backbone, [["left", "right", "left"], ["two", "two", "two"]])
        >>> answers.text, mask.tolist()
        (['left', 'right', 'two', 'two'], [[True, True], [True, False]])
    """
    rows = [list(dict.fromkeys(row)) for row in texts]
    length = max(len(row) for row in rows)
    padded = [text for row in rows for text in [*row, *row[:1] * (length - len(row))]]
    answers = backbone.tokenize_answers(padded)
    mask = torch.tensor([[i < len(row) for i in range(length)] for row in rows], device=answers.ids.device)
    return answers, mask


def _own_and_prompt_answers(backbone: Backbone, rollout: Rollout) -> Candidates:
    """The candidates of a rollout to which none were added: no reward has judged them, so the prompt's is accepted."""
    pairs = zip(rollout.target_answers, rollout.answers.text, strict=True)
    answers, mask = distinct_candidates(backbone, [[target, text or target] for target, text in pairs])
    accepted = torch.zeros_like(mask)
    accepted[:, 0] = True
    return Candidates(answers, mask, accepted)
