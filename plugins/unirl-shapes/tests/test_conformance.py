"""Conformance of the prompts and the judge."""

from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl.testing import JudgeConformance, PromptsConformance
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts
from unirl_shapes.vocabulary import COMPLEX


class TestShapesPrompts(PromptsConformance):
    def make(self) -> Prompts:
        return ShapesPrompts()


class TestShapesPromptsOfOneCategory(PromptsConformance):
    def make(self) -> Prompts:
        return ShapesPrompts({"counting": 1.0})


class TestShapesPromptsWithQuestionSets(PromptsConformance):
    def make(self) -> Prompts:
        return ShapesPrompts(question_sets=True)

    def test_other_processes_give_the_same_examples(self) -> None:
        """As without sets; a process takes seconds."""


class TestComplexShapesPrompts(TestShapesPromptsWithQuestionSets):
    def make(self) -> Prompts:
        return ShapesPrompts({"colors": 1.0, COMPLEX: 1.0}, question_sets=True)


class TestShapesJudge(JudgeConformance):
    examples = tuple(ShapesPrompts().held_out(36))

    def make(self) -> Judge:
        return ShapesJudge()


class TestShapesJudgeOnLargeImages(JudgeConformance):
    image_size = 96

    def make(self) -> Judge:
        return ShapesJudge(96)
