"""A model and its data small enough to test the command line with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.types import Answers, Example, Images, ImageSampling
from unirl.updates import UpdateRule

PLUGIN = """
from unirl import hookimpl

@hookimpl
def unirl_register_backbones(register):
    register("tiny", "standins:Tiny")
    register("other", "standins:Other")

@hookimpl
def unirl_register_rewards(register):
    register("same", "standins:Words")
    register("both", "standins:Both")
    register("gone", "no_such_module:Gone")

@hookimpl
def unirl_register_judges(register):
    register("eye", "standins:Eye")

@hookimpl
def unirl_register_updates(register):
    register("plain", "standins:Plain")

@hookimpl
def unirl_register_prompts(register):
    register("same", "standins:Fixed")
"""


class Tiny(Backbone):
    """Reads a checkpoint name and a size."""

    blocks = ()

    def __init__(self, checkpoint: str = "none", size: int = 3) -> None:
        super().__init__()
        self.checkpoint, self.size = checkpoint, size
        self.weight = nn.Parameter(torch.zeros(1))

    def build(self, meta: bool = False) -> None:
        if self.checkpoint == "missing":
            raise UserError("backbone.checkpoint: nothing at 'missing'")


# The rest of the contract is not called here.
Tiny.__abstractmethods__ = frozenset()


class Other(Tiny):
    """Has no size."""

    def __init__(self, checkpoint: str = "none") -> None:
        super().__init__(checkpoint)


class Words(Reward):
    """Another plugin of this name gives prompts."""

    def __init__(self, words: int = 1, **kwargs: Any) -> None:
        if words < 0:
            raise UserError(f"words must be 0 or more, got {words}")
        super().__init__(**kwargs)
        self.words = words

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples))


class Both(Words):
    """A reward made of rewards."""

    def __init__(self, parts: list[Reward], inner: Reward | None = None, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.parts, self.inner = parts, inner


class Eye(Judge):
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool)


class Plain(UpdateRule):
    def loss(self, *args: Any) -> Any:
        raise NotImplementedError


class Fixed(Prompts):
    def __init__(self, path: str = "") -> None:
        self.path = path

    def sample(self, seed: int, index: int) -> Example:
        return Example("a", "b", "c", "d")

    def held_out(self, count: int, seed: int = 0) -> list[Example]:
        return []


class Model(pl.LightningModule):
    """Stands in for SelfImprovement."""

    last: ClassVar["Model | None"] = None

    def __init__(
        self,
        backbone: Backbone,
        update: UpdateRule,
        rewards: list[Reward],
        judge: Judge | None = None,
        group_size: int = 4,
        sampling: ImageSampling = ImageSampling(),
        lr: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        fail_at: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone, self.update, self.rewards, self.judge = backbone, update, rewards, judge
        self.group_size, self.sampling, self.lr, self.betas, self.fail_at = group_size, sampling, lr, betas, fail_at
        Model.last = self

    def configure_model(self) -> None:
        self.backbone.build()

    def training_step(self, batch: Any) -> Tensor:
        if self.fail_at == "step":
            raise UserError("reward 'same' returned nan")
        if self.fail_at == "interrupt":
            raise KeyboardInterrupt
        return self.backbone.weight.sum() * 0

    def validation_step(self, batch: Any) -> None:
        self.log("seen", 1.0)

    def test_step(self, batch: Any) -> None:
        self.log("seen", 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr)


class Data(pl.LightningDataModule):
    """Stands in for PromptsDataModule."""

    def __init__(self, prompts: Prompts, prompts_per_step: int = 8) -> None:
        super().__init__()
        self.prompts = prompts

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader([torch.zeros(1)] * 2)

    val_dataloader = test_dataloader = train_dataloader


def install(folder: Path, name: str, source: str, version: str = "1.0", entry: str = "", value: str = "") -> None:
    """Write a distribution with one plugin module, as pip would."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[unirl]\n{entry or name} = {value or module}\n")
