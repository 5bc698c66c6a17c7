"""Backbones that are built, saved, copied or sharded in a wrong way, one fault each."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unirl.testing import TableBackbone
from unirl.types import Answers, Images


class Forgetful(TableBackbone):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        fresh = TableBackbone()
        fresh.build()
        return {**super().state_dict(*args, **kwargs), "look.weight": fresh.embed_images.weight.detach()}


class Pickled(TableBackbone):
    def save_pretrained(self, path: str | Path) -> None:
        super().save_pretrained(path)
        (Path(path) / "weights.data").write_bytes(pickle.dumps(self.state_dict()))


class Unsaved(TableBackbone):
    @classmethod
    def from_pretrained(cls, path_or_id: str) -> "TableBackbone":
        return super().from_pretrained(path_or_id) if path_or_id is None else _fresh(cls)


def _fresh(kind: type[TableBackbone]) -> TableBackbone:
    backbone = kind()
    backbone.build()
    return backbone


class Rebuilt(TableBackbone):
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "layers"):
            del self.layers
        super().build(meta)


class Eager(TableBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Linear(4, 4)


class Weighty(TableBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.extra = nn.Linear(4, 4)


class NoBlocks(TableBackbone):
    blocks = ()


class OtherBlocks(TableBackbone):
    blocks = (nn.TransformerEncoderLayer,)


class Dropping(TableBackbone):
    def _hidden(self, rows: Tensor) -> Tensor:
        return super()._hidden(rows * 1.5 if self.training else rows)


class EvalLeft(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        self.eval()
        return super().sample_images(prompts, sampling, generator)


class Thawing(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        self.image_tokenizer.requires_grad_(True)
        return super().image_log_probs(*args)


class Sharing(TableBackbone):
    def __deepcopy__(self, memo: Any) -> "Sharing":
        return self


class Divided(TableBackbone):
    """Each process draws in its own way."""

    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return super().sample_images(prompts, replace(sampling, temperature=sampling.temperature + rank), generator)


class Outside(TableBackbone):
    """Reads weights where the contract promises none."""

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        if torch.distributed.is_initialized():
            self.letters.head(torch.zeros(1, self.width))
        return super().tokenize_answers(texts)
