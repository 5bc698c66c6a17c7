"""The adapter for lmms-eval in docs/evaluate.md: on its interface where it is installed, else on the same methods."""

import re
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"


class Lmms(ABC):
    """The abstract methods of lmms-eval 0.7."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...


class Request:
    """What the adapter reads of an `Instance`."""

    def __init__(self, *args: Any) -> None:
        self.args = args


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    try:
        import lmms_eval.api.model  # noqa: F401, PLC0415
    except ImportError:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["lmms_eval.api.model"].lmms = Lmms  # type: ignore[attr-defined]
    (code,) = re.findall(r"```python\n(from lmms_eval.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    model = names["UnirlModel"]()  # the shipped Show-o, whose answers end
    image = Image.effect_noise((90, 50), 80).convert("RGB")
    model.task_dict = {"pope": {"test": [{"image": image, "answer": "yes"}] * 3}}
    return model


def visual(doc: dict[str, Any]) -> list[Image.Image]:
    return [doc["image"]]


def test_it_answers_and_scores(adapter: Any) -> None:
    torch.manual_seed(0)
    requests = [
        Request("is there a ring ?", {"max_new_tokens": 4}, visual, doc_id, "pope", "test") for doc_id in range(3)
    ]
    answers = adapter.generate_until(requests, batch_size=2)
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]
    scored = adapter.loglikelihood(
        [
            Request("is there a ring ?", target, visual, 0, "pope", "test")
            for target in (lambda doc: doc["answer"], answers[0])
        ]
    )
    assert all(log_prob < 0 for log_prob, _ in scored)
    assert scored[1][1]
    with pytest.raises(NotImplementedError):
        adapter.generate_until_multi_round(requests)
