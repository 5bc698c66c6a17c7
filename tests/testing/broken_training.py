"""Backbones with one error each in gradients, state, building, checkpoints, copies or sharding."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unirl.testing import TinyBackbone
from unirl.types import Answers, Images


class TrainableTokenizer(TinyBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.image_tokenizer.requires_grad_(True)


class SamplesWithGradient(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        images = super().sample_images(prompts, sampling, generator)
        return replace(images, log_probs=self.image_log_probs(prompts, images, sampling)[0])


class NoImageGradient(TinyBackbone):
    @torch.no_grad()
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(*args)


class NoAnswerGradient(TinyBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        return super().answer_log_probs(images, questions, answers).detach()


class AnswersIgnoreSoftCodes(TinyBackbone):
    def answer_log_probs(self, images: Images, questions: Sequence[str], answers: Answers) -> Tensor:
        log_probs = super().answer_log_probs(replace(images, soft=None), questions, answers)
        return log_probs + 0 * self.image_projection.weight.sum()


class ChangedSoftCodes(TinyBackbone):
    """Correct; subclasses change the straight-through codes."""

    def change(self, soft: Tensor) -> Tensor:
        return soft

    def straight_through(self, *args: Any) -> Images:
        images = super().straight_through(*args)
        assert images.soft is not None
        return replace(images, soft=self.change(images.soft))


class DetachedSoftCodes(ChangedSoftCodes):
    def change(self, soft: Tensor) -> Tensor:
        return soft.detach()


class LeafSoftCodes(ChangedSoftCodes):
    def change(self, soft: Tensor) -> Tensor:
        return soft.detach().requires_grad_()


class ScaledSoftCodes(ChangedSoftCodes):
    def change(self, soft: Tensor) -> Tensor:
        return soft * 0.9


class UnnamedError(TinyBackbone):
    supports_straight_through = False

    def straight_through(self, *args: Any) -> Images:
        raise TypeError("no")


class UndeclaredStraightThrough(TinyBackbone):
    supports_straight_through = False


class Dropout(TinyBackbone):
    def _run_layers(self, rows: Tensor) -> Tensor:
        return super()._run_layers(rows * 1.5 if self.training else rows)


class StaysInEvalMode(TinyBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        self.eval()
        return super().sample_images(prompts, sampling, generator)


class UnfreezesTokenizer(TinyBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        self.image_tokenizer.requires_grad_(True)
        return super().image_log_probs(*args)


class IncompleteStateDict(TinyBackbone):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        name = "image_projection.weight"
        return {**super().state_dict(*args, **kwargs), name: _built(TinyBackbone).image_projection.weight.detach()}


class WritesPickle(TinyBackbone):
    def save_pretrained(self, path: str | Path) -> None:
        super().save_pretrained(path)
        (Path(path) / "weights.data").write_bytes(pickle.dumps(self.state_dict()))


class DropsSamplingConfig(TinyBackbone):
    def save_pretrained(self, path: str | Path) -> None:
        super().save_pretrained(path)
        (Path(path) / "sampling_config.json").unlink()


class LoadsRandomWeights(TinyBackbone):
    @classmethod
    def from_pretrained(cls, path_or_id: str) -> TinyBackbone:
        return _built(cls)


class KeepsSavedType(TinyBackbone):
    @classmethod
    def from_pretrained(cls, path_or_id: str) -> TinyBackbone:
        backbone = super().from_pretrained(path_or_id)
        backbone.load_state_dict(load_file(Path(path_or_id) / "model.safetensors"), assign=True)
        return backbone


class RebuildsLayers(TinyBackbone):
    def build(self, meta: bool = False) -> None:
        if hasattr(self, "layers"):
            del self.layers
        super().build(meta)


class WeightsInConstructor(TinyBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)


class AllocatesOnMeta(TinyBackbone):
    def build(self, meta: bool = False) -> None:
        super().build(meta)
        self.linear = nn.Linear(4, 4)


class NoBlocks(TinyBackbone):
    blocks = ()


class WrongBlocks(TinyBackbone):
    blocks = (nn.TransformerEncoderLayer,)


class SharedCopy(TinyBackbone):
    def __deepcopy__(self, memo: Any) -> "SharedCopy":
        return self


class RankDependent(TinyBackbone):
    """Samples at another temperature on each rank."""

    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return super().sample_images(prompts, replace(sampling, temperature=sampling.temperature + rank), generator)


class TokenizesWithWeights(TinyBackbone):
    """Uses sharded weights in a method that is not prepared for it."""

    def tokenize_answers(self, texts: Sequence[str]) -> Answers:
        if torch.distributed.is_initialized():
            self.characters.head(torch.zeros(1, self.width))
        return super().tokenize_answers(texts)


def _built(kind: type[TinyBackbone]) -> TinyBackbone:
    backbone = kind()
    backbone.build()
    return backbone
