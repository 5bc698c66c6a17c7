"""Answering: what was kept is what is scored; companions do not matter; questions belong to their pictures."""

import dataclasses

import pytest
import torch

from unirl.backbones.base import Backbone
from unirl.errors import UserError
from unirl.testing.backbone_base import Checks, check_answers, gap, require, seeded
from unirl.testing.backbone_chance import untouched


class AnsweringChecks(Checks):
    """Sampling and scoring of answers agree."""

    @torch.no_grad()
    def test_scored_answers_are_those_kept_while_sampling(self, backbone: Backbone) -> None:
        images, questions = self.seen(backbone, self.generate(backbone)), list(self.questions)
        for temperature in (0.0, 1.0):
            sampling = dataclasses.replace(self.answering, temperature=temperature)
            answers = backbone.sample_answers(images, questions, sampling, seeded())
            require(answers.log_probs is not None, "sample_answers: log_probs are None; keep those of each token")
            assert answers.log_probs is not None
            scored = backbone.answer_log_probs(images, questions, answers)
            off = gap(scored * answers.mask, answers.log_probs * answers.mask)
            require(
                off <= self.tolerance,
                f"answer_log_probs: differs from the log_probs that sample_answers kept by up to {off:.2g} nats "
                f"(allowed: {self.tolerance:g}) at temperature {temperature:g}",
            )

    @torch.no_grad()
    def test_scoring_answers_follows_question_and_picture(self, backbone: Backbone) -> None:
        images, questions = self.seen(backbone, self.generate(backbone)), list(self.questions)
        given = backbone.tokenize_answers(list(self.answers))
        scored = backbone.answer_log_probs(images, questions, given)
        other = backbone.answer_log_probs(images, [*questions[1:], questions[0]], given)
        require(gap(scored, other) > 0, "answer_log_probs: the question makes no difference to what is scored")
        turned = torch.arange(len(questions)).roll(1)
        other = backbone.answer_log_probs(images[turned], questions, given)
        require(gap(scored, other) > 0, "answer_log_probs: the picture makes no difference to what is scored")

    def test_the_generator_alone_decides_answers(self, backbone: Backbone) -> None:
        images, questions = self.seen(backbone, self.generate(backbone)), list(self.questions) * 3

        def answer(seed: int) -> torch.Tensor:
            asked = images[torch.arange(len(images)).repeat_interleave(3)]
            return backbone.sample_answers(asked, questions, self.answering, seeded(seed)).ids

        one, same = untouched("sample_answers", lambda: answer(0)), untouched("sample_answers", lambda: answer(0), 2)
        require(
            torch.equal(one, same),
            "sample_answers: a generator in the same state gives other answers; every random number must come from it",
        )
        if self.answering.temperature:
            others = [answer(seed) for seed in range(1, 4)]
            alike = all(torch.equal(one, other) for other in others)
            require(not alike, "sample_answers: another seed of the generator changes nothing")

    @torch.no_grad()
    def test_companions_do_not_matter_in_answering(self, backbone: Backbone) -> None:
        images, questions = self.seen(backbone, self.generate(backbone)), list(self.questions)
        greedy = dataclasses.replace(self.answering, temperature=0.0)
        answers = backbone.sample_answers(images, questions, greedy)
        together = backbone.answer_log_probs(images, questions, answers)
        for row, question in enumerate(questions):
            part = slice(row, row + 1)
            alone = backbone.sample_answers(images[part], [question], greedy)
            said, text = answers.text[row], alone.text[0]
            require(
                said == text,
                f"sample_answers: answer {row} depends on the others in the batch: {said!r} among them, {text!r} alone",
            )
            off = gap(backbone.answer_log_probs(images[part], [question], answers[part]), together[part])
            require(
                off <= self.tolerance,
                f"answer_log_probs: the score of answer {row} depends on the others in the batch (by {off:.2g} nats)",
            )

    @torch.no_grad()
    def test_several_questions_about_each_picture(self, backbone: Backbone) -> None:
        images = self.seen(backbone, self.generate(backbone))[:2]
        questions = [*self.questions[:2], *self.questions[:2]]
        given = backbone.tokenize_answers([self.answers[0]] * 4)
        each = images[torch.tensor([0, 0, 1, 1])]
        off = gap(
            backbone.answer_log_probs(images, questions, given), backbone.answer_log_probs(each, questions, given)
        )
        rule = "of k x B questions the first k are about the first picture, and so on"
        require(off <= self.tolerance, f"answer_log_probs: {rule}; scores differ by up to {off:.2g} nats")
        greedy = dataclasses.replace(self.answering, temperature=0.0)
        one, other = (list(backbone.sample_answers(i, questions, greedy).text) for i in (images, each))
        require(one == other, f"sample_answers: {rule}; it said {one}, and {other} about each picture by itself")
        try:
            backbone.answer_log_probs(images, questions[:3], given[:3])
        except (UserError, ValueError):
            return
        raise AssertionError("answer_log_probs: takes 3 questions about 2 pictures; it must refuse what is no multiple")

    def test_given_answers_become_tokens(self, backbone: Backbone) -> None:
        texts = list(self.answers)
        given = backbone.tokenize_answers(texts)
        check_answers(given, len(texts), "tokenize_answers")
        require(list(given.text) == texts, f"tokenize_answers: text is {list(given.text)}, expected {texts}")
        rows = [ids[mask].tolist() for ids, mask in zip(given.ids, given.mask, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            alone = backbone.tokenize_answers([text])
            same = alone.ids[0][alone.mask[0]].tolist() == row
            require(same, f"tokenize_answers: the tokens of {text!r} depend on the others in the batch")
        require(
            len({row[-1] for row in rows}) == 1 and all(len(row) > 1 for row in rows),
            "tokenize_answers: answers do not all end in one token; end-of-text is part of each",
        )
        different = len({tuple(row) for row in rows}) == len(set(texts))
        require(different, "tokenize_answers: different answers become the same tokens")

    def test_answers_of_different_lengths_end_for_themselves(self, backbone: Backbone) -> None:
        texts = list(self.answers)
        if len({len(text) for text in texts}) == 1:
            pytest.skip("all of `answers` have one length")
        images, given = self.seen(backbone, self.generate(backbone)), backbone.tokenize_answers(texts)
        other = given.ids.masked_fill(~given.mask, int(given.ids[0, 0]))
        off = gap(
            backbone.answer_log_probs(images, list(self.questions), given),
            backbone.answer_log_probs(images, list(self.questions), dataclasses.replace(given, ids=other)),
        )
        require(off <= self.tolerance, "answer_log_probs: what stands outside the mask changes what is scored inside")
