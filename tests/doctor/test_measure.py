"""Peaks of memory on fake tensors, against those of the same step on real ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from unirl.backbones import PretrainedModel, locate
from unirl.backbones.checkpoints import weight_files
from unirl.backbones.janus import Janus
from unirl.backbones.lora import LoRA
from unirl.backbones.showo import Showo
from unirl.doctor import few_steps, measure
from unirl.doctor.findings import format_bytes
from unirl.doctor.measure import Measurement
from unirl.doctor.setup import Setup
from unirl.errors import UserError
from unirl.rewards.keyword import Keyword
from unirl.rewards.likelihood import Likelihood
from unirl.rewards.questions import Questions
from unirl.testing import TinyBackbone
from unirl.training import PromptsDataModule, RolloutConfig, SelfImprovement
from unirl.training.config import EvaluationConfig
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Question
from unirl.updates.grpo import GRPO, KLPenalty
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

BACKBONES = {"showo": Showo, "janus": Janus}
CPU = Setup("cpu")
STEP = {"gradients", "optimizer states"}
"""What exists from the first step on."""
RULES: dict[str, Any] = {
    "grpo": lambda: GRPO(answer_labels="self", kl=KLPenalty(beta=0.1)),
    "sft": lambda: SFT(end_to_end=True, answer_labels="prompt"),
}


def run(backbone: str, rule: str, lora: LoRA | None = None, **data: int) -> tuple[SelfImprovement, PromptsDataModule]:
    model = SelfImprovement(
        BACKBONES[backbone](f"unirl_shapes:checkpoints/{backbone}", gradient_checkpointing=backbone == "janus"),
        RULES[rule](),
        [Likelihood()],
        rollout=RolloutConfig(4, 1, ImageSampling(3, guidance=1.0), AnswerSampling(4)),
        evaluation=EvaluationConfig(num_diversity_prompts=1),
        lora=lora,
    )
    sizes = {"prompts_per_step": 4, "num_val_prompts": 8, "val_batch_size": 4} | data
    return model, PromptsDataModule(ShapesPrompts(), steps_per_epoch=1, **sizes)


def fake(backbone: str = "showo", rule: str = "grpo", setup: Setup = CPU, **options: Any) -> Measurement:
    return measure.measure(*run(backbone, rule, **options), setup)


@pytest.fixture(scope="module")
def showo() -> Measurement:
    return fake()


@pytest.fixture(scope="module")
def janus() -> Measurement:
    return fake("janus", "sft")


@pytest.mark.parametrize(("backbone", "rule"), [("showo", "grpo"), ("janus", "sft")])
def test_fake_tensors_take_as_much_as_real_ones(
    backbone: str, rule: str, showo: Measurement, janus: Measurement
) -> None:
    found, expected = {"showo": showo, "janus": janus}[backbone], measure.measure(*run(backbone, rule), CPU, real=True)
    assert list(found.peaks) == ["build", "rollout", "loss", "optimizer", "validation"]
    for kind in ("weights", "gradients", "optimizer states"):
        assert found.constant[kind] == expected.constant[kind], kind
    assert found.peak == pytest.approx(expected.peak, rel=0.03)
    assert found.peaks["build"] < 1.2 * sum(found.constant[kind] for kind in found.constant.keys() - STEP)
    for phase in ("rollout", "optimizer", "validation"):
        assert found.peaks[phase] == pytest.approx(expected.peaks[phase], rel=0.15), phase


def test_an_accumulating_run_on_gpus_under_ddp(showo: Measurement) -> None:
    found = fake(setup=Setup("cuda", 2, "DDPStrategy", accumulates=True, validates=False), prompts_per_step=8)
    assert found.constant["DDP buckets"] == found.constant["gradients"]
    # Gradients of earlier batches, too, exist in a rollout.
    assert found.peaks["rollout"] - showo.peaks["rollout"] > 1.9 * found.constant["gradients"]
    held, gradients = sum(found.constant.values()), found.constant["gradients"]
    assert found.peaks["optimizer"] < held + 0.5 * gradients  # in one kernel, which needs no copies


def test_fsdp2_holds_a_share_between_steps_and_all_weights_in_a_rollout(showo: Measurement) -> None:
    four = fake(setup=Setup("cpu", 4, "FSDP2Strategy", validates=False), prompts_per_step=16)
    for kind in ("weights", "gradients", "optimizer states"):
        assert four.constant[kind] == pytest.approx(showo.constant[kind] / 4, rel=0.1), kind
    trained = showo.constant["gradients"]
    assert four.peaks["rollout"] > trained  # gathered
    assert four.peaks["optimizer"] < 0.6 * showo.peaks["optimizer"]  # not gathered
    assert showo.peaks["loss"] - four.peaks["loss"] > 2 * trained  # states, gradients and the reference are shared


def test_adapters_need_no_states_of_the_weights() -> None:
    pytest.importorskip("peft")
    found = fake("janus", setup=Setup("cpu", validates=False), lora=LoRA(("q_proj",), rank=2))
    assert found.constant["weights"] > 10e6
    assert found.peaks["optimizer"] < 1.1 * found.constant["weights"]  # and no copy of them as the reference
    with pytest.raises(UserError, match="no linear layer is called 'q_projj'"):
        fake("janus", lora=LoRA(("q_projj",)))


def test_the_example_with_most_questions_is_measured() -> None:
    class Sets(ShapesPrompts):
        def sample(self, seed: int, index: int) -> Example:
            example = super().sample(seed, index)
            more = (Question("how many", "one", ("one", "two")), Question("which color", "red", requires=(1,)))
            return replace(example, questions=(*example.questions, *more[: index % 3]))

    rows = []

    class Counting(Questions):
        def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
            rows.append(len(answers) // len(examples))
            return super().score(examples, images, answers)

    model = SelfImprovement(TinyBackbone(), SFT(), [Counting(open_questions="keyword")])
    data = PromptsDataModule(Sets(), prompts_per_step=1, steps_per_epoch=1, num_val_prompts=0)
    measure.measure(model, data, Setup("cpu", validates=False))
    assert rows == [3]


class Detects(ShapesJudge):
    pretrained_models = (PretrainedModel("unirl_shapes:checkpoints/showo"), PretrainedModel("hub/detector"))


def test_the_weights_of_a_judge_are_named() -> None:
    """They are not run on fake tensors, so they are not among the peaks."""
    model = SelfImprovement(TinyBackbone(), SFT(), [Keyword()], judge=Detects())
    data = PromptsDataModule(ShapesPrompts(), prompts_per_step=1, steps_per_epoch=1, num_val_prompts=0)
    here, on_the_hub = measure.measure(model, data, Setup("cpu", validates=False)).left_out
    size = sum(path.stat().st_size for path in weight_files(locate("unirl_shapes:checkpoints/showo")))
    assert f"{format_bytes(size)} of weights on the device" in here
    assert on_the_hub == "the judge's model hub/detector, weights on the device from the first validation on"


def test_few_steps_of_sampling_take_as_much_as_all(monkeypatch: pytest.MonkeyPatch, janus: Measurement) -> None:
    monkeypatch.setattr(few_steps, "STEPS", 1000)
    every = fake("janus", "sft", Setup("cpu", validates=False))
    assert janus.peaks["rollout"] == pytest.approx(every.peaks["rollout"], rel=0.02)
