"""The peak of memory of a device in each phase of a run, measured by running a step: really, or on fake tensors."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import _disable_current_modes
from typing_extensions import override

from unirl.backbones.checkpoints import locate_local, weight_files
from unirl.doctor.fake_tensors import fake_tensors, make_fake
from unirl.doctor.few_steps import few_steps
from unirl.doctor.findings import format_bytes
from unirl.doctor.setup import Setup
from unirl.doctor.tracker import MemoryTracker
from unirl.errors import UserError
from unirl.judges import Judge
from unirl.rewards import Reward
from unirl.rewards.pretrained import PretrainedReward
from unirl.types import Answers, Example, Images, Rollout

PHASES = ("build", "rollout", "loss", "optimizer", "validation")


@dataclass(frozen=True)
class Measurement:
    """Bytes of a device.

    Args:
        peaks: Largest sum of what exists at once, by phase.
        constant: What exists all the time, by kind: weights, gradients, optimizer states, the reference and the like.
        left_out: What could not be measured, and why.
        is_real: Whether the step was really run.
    """

    peaks: dict[str, int]
    constant: dict[str, int]
    left_out: list[str]
    is_real: bool

    @property
    def peak(self) -> int:
        """Of all phases."""
        return max(self.peaks.values())


def measure(model: Any, data: Any, setup: Setup, real: bool = False) -> Measurement:
    """Run one training step and one validation batch as later ones of `fit` run, and record what they hold.

    All samples are trained on, whatever the rewards say, but for one of each group, which is not accepted.

    Args:
        model: A `SelfImprovement` that is not built, or is built on the meta device. Do not use it afterwards.
        data: Its `PromptsDataModule`.
        setup: Of the run.
        real: Load the model and compute on a device. Otherwise the step is run on fake tensors: answers are then as
            long as they may be.

    Raises:
        UserError: settings do not fit the model.
    """
    accelerator = setup.accelerator if real else "cpu"
    memory = MemoryTracker(accelerator)
    recorder, left_out = _Recorder(memory, setup), [] if real else _replace_rewards(model)
    if not real:
        model.backbone.build(meta=True)
        model.exclude_frozen_parameters = False  # it reads the contents of all weights, and nothing is saved
    if setup.accumulates:
        model.on_train_batch_start = lambda *_, **__: None  # frees no gradients: a batch of a step but not the first
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if not real:
            mesh = stack.enter_context(_fake_processes(setup.devices)) if setup.shards else None
            stack.enter_context(fake_tensors(cuda=setup.accelerator == "cuda"))
            stack.enter_context(few_steps(model.backbone))
        stack.enter_context(memory)
        memory.start("build")
        if not real:
            _make_fake(model)
            build = model._build
            model._build = lambda _: build(mesh)
        model.rollouts.sample = recorder.sampling(model.rollouts.sample, real, _most_questions(data))
        _trainer(setup, accelerator, recorder).fit(model, data)
    return Measurement(
        {name: memory.peaks[name] for name in PHASES if name in memory.peaks}, recorder.constant, left_out, real
    )


def _trainer(setup: Setup, accelerator: str, callback: Callback) -> Trainer:
    return Trainer(
        accelerator=accelerator,
        devices=1,
        strategy=_OneOfMany(setup, accelerator),
        precision=setup.precision,  # type: ignore[arg-type]
        gradient_clip_val=setup.clip,
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=int(setup.validates),
        num_sanity_val_steps=0,
        callbacks=callback,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )


class _OneOfMany(SingleDeviceStrategy):
    """One process that takes itself for the first of many."""

    def __init__(self, setup: Setup, accelerator: str) -> None:
        super().__init__(device=torch.device(accelerator, 0) if accelerator != "cpu" else torch.device("cpu"))
        self.world_size = setup.devices
        self.offload, self.offload_reference = setup.offload


class _Recorder(Callback):
    """Says which phase is running, and makes the gradients and optimizer states that a later step begins with."""

    def __init__(self, memory: MemoryTracker, setup: Setup) -> None:
        self.memory, self.run = memory, setup
        self.constant: dict[str, int] = {}
        self.buckets: list[Tensor] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.memory.start("optimizer")
        self.memory.peaks["build"] = self.memory.live  # models are built on the CPU, and then moved
        (optimizer,) = trainer.optimizers
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        if self.run.strategy == "DDPStrategy" and not self.run.bucket_views:
            self.buckets = [torch.empty_like(weight) for weight in weights]
        if self.run.accelerator == "cuda":
            for group in optimizer.param_groups:  # how tensors on CUDA are updated, and fake ones are not
                if group.get("foreach", False) is None and not group.get("fused"):
                    group["fused" if "fused" in group else "foreach"] = True
        optimizer.step()
        self.constant = self._constant(pl_module, optimizer, weights)
        self.memory.start("rollout")  # FSDP2 gathers all weights first

    def _constant(
        self, module: LightningModule, optimizer: torch.optim.Optimizer, weights: list[Tensor]
    ) -> dict[str, int]:
        backbone: Any = module.backbone
        tensors = [*backbone.parameters(), *backbone.buffers()]
        states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        kinds = {"weights": tensors, "gradients": [weight.grad for weight in weights], "optimizer states": states}
        kinds |= {"DDP buckets": self.buckets}
        found = {name: sum(_nbytes(tensor) for tensor in kind) for name, kind in kinds.items()}
        found["reference, rewards"] = max(0, self.memory.live - sum(found.values()))
        return {name: count for name, count in found.items() if count > max(found.values()) / 1000}

    def sampling(self, sample: Callable[..., Rollout], real: bool, num_questions: int) -> Callable[..., Rollout]:
        """The same method of `Rollouts`, with an example that has many questions.

        In training it begins a phase, and all but one of a group are accepted.
        """

        def sample_worst_case(examples: Sequence[Example], *args: Any, **kwargs: Any) -> Rollout:
            training = self.memory.phase != "validation"
            rollout = sample(_ask_more(examples, num_questions), *args, **kwargs)
            if not training:
                return rollout
            self.memory.start("loss")
            accepted = torch.arange(len(rollout), device=rollout.scores.device) % rollout.group_size > 0
            accepted = accepted | (rollout.group_size == 1)
            scores = accepted.float()
            if not real:
                rollout = _FewBatches(**{field.name: getattr(rollout, field.name) for field in fields(rollout)})
            return replace(
                rollout, scores=scores, score_parts=dict.fromkeys(rollout.score_parts, scores), accepted=accepted
            )

        return sample_worst_case

    @override
    def on_before_optimizer_step(self, *_: Any) -> None:
        self.memory.start("optimizer")

    @override
    def on_validation_start(self, *_: Any) -> None:
        self.memory.start("validation")


def _most_questions(data: Any, count: int = 100) -> int:
    """The largest number of questions of an example, among the held-out ones and the first ones of training."""
    examples = [*data.val_examples, *(data.prompts.sample(data.seed, i) for i in range(count))]
    return max(len(example.questions) for example in examples)


def _ask_more(examples: Sequence[Example], num_questions: int) -> list[Example]:
    """The same examples, of which the first has that many questions or more."""
    first, *others = examples
    repeated = first.questions[:1] * (num_questions - len(first.questions))
    return [replace(first, questions=(*first.questions, *repeated)), *others]


def _nbytes(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()


@contextmanager
def _fake_processes(count: int) -> Iterator[DeviceMesh]:
    """A process group of this process and others that do not exist; collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 - registers the backend

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield init_device_mesh("cpu", (count,))
    finally:
        dist.destroy_process_group()


# --- stand-ins for what cannot run on fake tensors ---


def _replace_rewards(model: Any) -> list[str]:
    """Load the models of rewards, and replace what cannot be loaded, and the judge. Returns what is left out."""
    left_out = []
    for rewards in (model.rewards, model.rollouts.rewards):
        for index, reward in enumerate(rewards):
            try:
                _ = reward.loaded if isinstance(reward, PretrainedReward) else None
            except UserError as error:
                rewards[index] = _NoReward(reward)
                left_out.append(str(error))
    evaluator = model.evaluator
    evaluator.config = replace(evaluator.config, diversity_model=None)
    if evaluator.judge is not None:
        left_out += _judge_models(evaluator.judge)
        evaluator.judge = _AnyJudge(evaluator.judge)
    return list(dict.fromkeys(left_out))


def _judge_models(judge: Judge) -> Iterator[str]:
    """What the models of a judge take, which are not run on fake tensors."""
    for model in judge.pretrained_models:
        folder = locate_local(model.name)
        size = f"{format_bytes(sum(p.stat().st_size for p in weight_files(folder)))} of " if folder else ""
        yield f"the judge's model {model.name}, {size}weights on the device from the first validation on"


def _make_fake(model: Any) -> None:
    """Make the weights of backbone and rewards fake, in place."""
    make_fake(model.backbone)
    for reward in model.rewards:
        if isinstance(reward, PretrainedReward):
            loaded = reward.loaded
            for part in loaded if isinstance(loaded, tuple) else (loaded,):
                if isinstance(part, nn.Module):
                    make_fake(part)


class _FewBatches(Rollout):
    """A rollout that is trained on in at most two micro-batches; the others take what the last one takes."""

    @override
    def micro_batches(self) -> list[Rollout]:
        every = list(super().micro_batches())
        return [every[0], every[-1]] if len(every) > 2 else every


class _NoReward(Reward):
    """Takes the place of a reward whose model cannot be loaded."""

    def __init__(self, reward: Reward) -> None:
        super().__init__(reward.weight, reward.standardize)
        self.needs_pixels = reward.needs_pixels  # type: ignore[misc]
        self.accept_threshold = reward.accept_threshold

    @override
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        return torch.ones(len(examples), dtype=torch.float32, device=answers.ids.device)


class _AnyJudge(Judge):
    """Takes the place of a judge, which looks at pixels."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @override
    def verdicts(self, examples: Sequence[Example], pixels: Tensor) -> Tensor:
        return torch.ones(len(examples), dtype=torch.bool, device=pixels.device)

    @override
    def understanding_set(self, count: int, seed: int = 0) -> tuple[Sequence[Example], Tensor | Sequence[str]] | None:
        with _disable_current_modes():  # it may keep its images for the next time
            return self.judge.understanding_set(count, seed)

    @override
    def references(self, examples: Sequence[Example]) -> Tensor | Sequence[str | None] | None:
        with _disable_current_modes():
            return self.judge.references(examples)
