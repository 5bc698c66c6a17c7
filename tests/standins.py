"""Small stand-ins for a model, its data and its plugins, to test the command line and plugin loading with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from unirl.backbones import Backbone
from unirl.errors import UserError
from unirl.judges import Judge
from unirl.prompts import Prompts
from unirl.rewards import Reward
from unirl.training.config import RolloutConfig
from unirl.types import Answers, Example, Images
from unirl.updates import UpdateRule

PLUGIN = """
from unirl import hookimpl

@hookimpl
def unirl_register_backbones(register):
    register("tiny", "standins:TinyBackbone")
    register("other", "standins:OtherBackbone")

@hookimpl
def unirl_register_rewards(register):
    register("fixed", "standins:FixedReward")
    register("combined", "standins:CombinedReward")
    register("missing", "no_such_module:Missing")

@hookimpl
def unirl_register_judges(register):
    register("always", "standins:AlwaysJudge")

@hookimpl
def unirl_register_updates(register):
    register("zero", "standins:ZeroUpdate")

@hookimpl
def unirl_register_prompts(register):
    register("fixed", "standins:FixedPrompts")
"""


class TinyBackbone(Backbone):
    """Has a checkpoint name, a size and one weight."""

    blocks = ()

    def __init__(self, checkpoint: str = "none", size: int = 3) -> None:
        super().__init__()
        self.checkpoint, self.size = checkpoint, size
        self.weight = nn.Parameter(torch.zeros(1))

    def build(self, meta: bool = False) -> None:
        if self.checkpoint == "missing":
            raise UserError("backbone.checkpoint: nothing at 'missing'")


# The other methods are not called here.
TinyBackbone.__abstractmethods__ = frozenset()


class OtherBackbone(TinyBackbone):
    """Has no size."""

    def __init__(self, checkpoint: str = "none") -> None:
        super().__init__(checkpoint)


class FixedReward(Reward):
    """Scores everything 1. A prompts plugin has the same registered name."""

    def __init__(self, words: int = 1, **kwargs: Any) -> None:
        if words < 0:
            raise UserError(f"words must be 0 or more, got {words}")
        super().__init__(**kwargs)
        self.words = words

    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples))


class CombinedReward(FixedReward):
    """A reward that takes rewards."""

    def __init__(self, parts: list[Reward], inner: Reward | None = None, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.parts, self.inner = parts, inner


class AlwaysJudge(Judge):
    """Accepts every image."""

    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool)


class ZeroUpdate(UpdateRule):
    """Is never called."""

    def loss(self, *args: Any) -> Any:
        raise NotImplementedError


class FixedPrompts(Prompts):
    """Always the same example."""

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
        rollout: RolloutConfig = RolloutConfig(),
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-5),
        trainable_modules: list[str] | None = None,
        seed: int | None = None,
        fail_at: str = "",
    ) -> None:
        super().__init__()
        self.backbone, self.update, self.rewards, self.judge = backbone, update, rewards, judge
        self.rollout, self.optimizer, self.seed, self.fail_at = rollout, optimizer, seed, fail_at
        Model.last = self

    def configure_model(self) -> None:
        self.backbone.build()

    def training_step(self, batch: Any) -> Tensor:
        if self.fail_at == "step":
            raise UserError("reward 'fixed' returned nan")
        if self.fail_at == "interrupt":
            raise KeyboardInterrupt
        return self.backbone.weight.sum() * 0

    def validation_step(self, batch: Any) -> None:
        self.log("validated", 1.0)

    def test_step(self, batch: Any) -> None:
        self.log("validated", 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())


class Data(pl.LightningDataModule):
    """Stands in for PromptsDataModule."""

    def __init__(self, prompts: Prompts, prompts_per_step: int = 8, seed: int | None = None) -> None:
        super().__init__()
        self.prompts, self.seed = prompts, seed

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader([torch.zeros(1)] * 2)

    val_dataloader = test_dataloader = train_dataloader


def install(folder: Path, name: str, source: str, version: str = "1.0", entry: str = "", value: str = "") -> None:
    """Write a distribution of one module as pip would.

    Args:
        folder: A folder on the path.
        name: Name of the distribution.
        source: Source of its module.
        version: Its version.
        entry: Name of its entry point, if it is not `name`.
        value: Object reference of its entry point, if it is not the module.
    """
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[unirl]\n{entry or name} = {value or module}\n")
