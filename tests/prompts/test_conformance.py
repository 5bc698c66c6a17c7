"""Conformance of the built-in sources of prompts."""

import json
from pathlib import Path

import pytest

from unirl.prompts import GenEval, JsonLines, Prompts
from unirl.testing import PromptsConformance


class TestGenEval(PromptsConformance):
    def make(self) -> Prompts:
        return GenEval()


class TestGenEvalWithTwoCategories(PromptsConformance):
    def make(self) -> Prompts:
        return GenEval({"counting": 1.0, "single_object": 3.0})


class TestGenEvalWithQuestionSets(PromptsConformance):
    def make(self) -> Prompts:
        return GenEval(question_sets=True)


class TestJsonLines(PromptsConformance):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"a photo of {i} cups", "question": "how many ?", "answer": f"{i} cups"} for i in range(60)]
        for i, row in enumerate(rows):
            row["category"] = "many" if i % 4 else "few"
        self.train, self.held_out = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
        self.train.write_text("\n".join(json.dumps(row) for row in rows[:30]))
        self.held_out.write_text("\n".join(json.dumps(row) for row in rows[30:]))

    def make(self) -> Prompts:
        return JsonLines(str(self.train), str(self.held_out))


class TestJsonLinesWithoutHeldOut(TestJsonLines):
    def make(self) -> Prompts:
        return JsonLines(str(self.train))
