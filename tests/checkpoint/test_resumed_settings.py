"""What a run that resumes a checkpoint may change, and what it is refused: by `fit`, the doctor and a plain Trainer."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch.optim.lr_scheduler import LinearLR, OneCycleLR, SequentialLR, StepLR

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package

from interrupted_runs import run_forked
from test_stopped_runs import fit_arguments

from unirl import ImageSampling, LoRA
from unirl.backbones.checkpoints import locate_local
from unirl.backbones.fingerprint import fingerprint
from unirl.backbones.showo import Showo
from unirl.checkpoint import AtomicCheckpointIO
from unirl.checkpoint.resume import check_ckpt_path, no_checkpoint_message
from unirl.checkpoint.sharded import META, METADATA
from unirl.checkpoint.weights import check_strategy
from unirl.cli.doctor import examine
from unirl.cli.main import main
from unirl.doctor.resuming import CONFIG, check_resume
from unirl.errors import UserError
from unirl.rewards.keyword import Keyword
from unirl.training import EvaluationConfig, PromptsDataModule, RolloutConfig, SelfImprovement, WarmupSchedule
from unirl.training.held_settings import SETTINGS, check_held, held_settings, same_sampling
from unirl.training.optimizers import check_run_length
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge
from unirl_shapes.prompts import ShapesPrompts

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def settings(checkpoint: Path | str, trainer: Any = None, data: Any = None, **model: Any) -> Any:
    """What the checkpoints of a run hold, which is not started."""
    adamw = lambda p: torch.optim.AdamW(p, lr=1e-3)  # noqa: E731
    arguments: dict[str, Any] = {"update": SFT(), "rewards": [Keyword()], "judge": ShapesJudge(), "optimizer": adamw}
    module = SelfImprovement(Showo(str(checkpoint)), **arguments | model)
    made = Trainer(**{"accelerator": "cpu", "enable_checkpointing": False} | QUIET | (trainer or {}))
    sizes = {"prompts_per_step": 4, "steps_per_epoch": 3, "num_val_prompts": 4} | (data or {})
    return held_settings(module, made, PromptsDataModule(**{"prompts": ShapesPrompts()} | sizes))


def one_cycle(pct_start: float) -> Callable[..., Any]:
    return lambda o: OneCycleLR(o, 1e-3, 10, pct_start=pct_start)


def in_sequence(factor: float) -> Callable[..., Any]:
    return lambda o: SequentialLR(o, [LinearLR(o, factor, total_iters=2), StepLR(o, 3)], [2])


def early(patience: int) -> dict[str, Any]:
    return {"callbacks": [EarlyStopping("val/generation/overall", patience=patience)]}


Case = tuple[dict[str, Any], dict[str, Any], str]
REFUSED: list[Case] = [
    ({}, {"optimizer": lambda p: torch.optim.AdamW(p, lr=2e-3)}, "model.optimizer.lr is 0.002, and was 0.001"),
    ({}, {"optimizer": lambda p: torch.optim.AdamW(p, 1e-3, (0.9, 0.9))}, "model.optimizer.betas is [0.9, 0.9], and"),
    ({}, {"optimizer": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.5)}, "weight_decay is 0.5, and was 0.01"),
    ({}, {"optimizer": lambda p: torch.optim.SGD(p, 1e-3)}, "torch.optim.sgd.SGD, and was torch.optim.adamw.AdamW"),
    ({}, {"lr_scheduler": lambda o: StepLR(o, 3)}, "lr_scheduler is torch.optim.lr_scheduler.StepLR, and was null"),
    ({"lr_scheduler": lambda o: StepLR(o, 3)}, {"lr_scheduler": lambda o: StepLR(o, 4)}, "step_size is 4, and was 3"),
    (
        {"lr_scheduler": lambda o: StepLR(o, 3)},
        {"lr_scheduler": WarmupSchedule},
        "model.lr_scheduler is unirl.training",
    ),
    ({"lr_scheduler": one_cycle(0.2)}, {"lr_scheduler": one_cycle(0.3)}, "model.lr_scheduler._schedule_phases"),
    ({"lr_scheduler": in_sequence(0.2)}, {"lr_scheduler": in_sequence(0.3)}, "start_factor is 0.3, and was 0.2"),
    ({}, {"lora": LoRA(("q_proj",), 2)}, "model.lora is {'targets': ['q_proj'], 'rank': 2, 'alpha': 32}, and was null"),
    ({"lora": LoRA(rank=2)}, {"lora": LoRA(rank=4, alpha=8)}, "model.lora.rank is 4, and was 2"),
    ({}, {"trainable_modules": ["mlp"]}, "model.trainable_modules is ['mlp'], and was null"),
    ({}, {"judge": None}, "model.judge is null, and was unirl_shapes.judge.ShapesJudge"),
    ({}, {"rewards": [Keyword(weight=2.0)]}, "model.rewards.weight is 2.0, and was 1.0"),
    ({}, {"evaluation": EvaluationConfig(ImageSampling(3))}, "model.evaluation.image_sampling.steps is 3, and was 16"),
    ({}, {"data": {"num_val_prompts": 5}}, "is 5 held-out prompts"),
    ({}, {"data": {"prompts_per_step": 8}}, "data.prompts_per_step is 8, and was 4"),
    ({}, {"data": {"steps_per_epoch": 9}}, "data.steps_per_epoch is 9, and was 3"),
    ({}, {"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches is 2, and was 1"),
    ({}, {"trainer": {"limit_val_batches": 1}}, "trainer.limit_val_batches is 1, and was 1.0"),
    ({"trainer": early(3)}, {"trainer": early(4)}, "patience is 4, and was 3"),
    (
        {"trainer": {"callbacks": [EMAWeightAveraging()]}},
        {"trainer": {}},
        "(weight averaging) is [], and was ['EMAWeightAveraging']",
    ),
]
ACCEPTED: list[Case] = [
    ({}, {"trainer": {"max_steps": 9, "max_epochs": 4, "gradient_clip_val": 1.0, "precision": "bf16-mixed"}}, ""),
    ({"lr_scheduler": WarmupSchedule}, {"lr_scheduler": lambda o: WarmupSchedule(o, 5, "cosine")}, ""),
    ({"trainer": {"limit_val_batches": 0}}, {"trainer": {"callbacks": [EMAWeightAveraging()]}}, ""),
    ({}, {"seed": 4, "rollout": RolloutConfig(8, num_iterations=2), "update": GRPO(), "data": {"seed": 3}}, ""),
]


def test_what_the_state_in_a_checkpoint_holds_is_refused_by_name(shapes_checkpoint: Path) -> None:
    """Each option with both values, and the way that takes the new one. What the run's own config decides is not."""
    problems = []
    for old, new, expected in [*REFUSED, *ACCEPTED]:
        message = ""
        try:
            check_held(settings(shapes_checkpoint, **old), settings(shapes_checkpoint, **old | new), "last.ckpt")
        except UserError as error:
            message = str(error)
        way = "unirl export --ckpt last.ckpt --out FOLDER, then --model.backbone.init_args.checkpoint FOLDER"
        if expected not in message or bool(message) != bool(expected) or (message and way not in message):
            problems.append(f"{new}: expected {expected!r}, got {message!r}")
    assert not problems, "\n".join(problems)


def test_an_evaluation_needs_the_model_of_its_checkpoint_only(shapes_checkpoint: Path) -> None:
    saved = settings(shapes_checkpoint)
    check_held(saved, settings(shapes_checkpoint, optimizer=torch.optim.SGD, judge=None), "a.ckpt", training=False)
    with pytest.raises(UserError, match=r"model\.lora is .* give the settings of the checkpoint$"):
        check_held(saved, settings(shapes_checkpoint, lora=LoRA()), "a.ckpt", training=False)


def test_a_base_model_is_known_by_its_weights(shapes_checkpoint: Path, tmp_path: Path) -> None:
    """It may lie elsewhere when a run is resumed. Another one has another fingerprint, and a hub id may have none."""
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(shapes_checkpoint, moved)
    shutil.copytree(shapes_checkpoint, other)
    (weights,) = other.glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    saved = settings(shapes_checkpoint)
    check_held(saved, settings(moved), "a.ckpt")
    with pytest.raises(UserError, match=rf"model\.backbone\.checkpoint is {other}, and was {shapes_checkpoint}"):
        check_held(saved, settings(other), "a.ckpt")
    assert fingerprint("owner/not-downloaded") is None


def test_samples_of_a_checkpoint_are_trained_on_where_they_would_be_made_again(shapes_checkpoint: Path) -> None:
    saved = settings(shapes_checkpoint)
    assert same_sampling(saved, settings(shapes_checkpoint, seed=1, rollout=RolloutConfig(loss_batch_size=2)))
    for other in ({"rollout": RolloutConfig(8)}, {"update": GRPO()}, {"update": SFT(answer_weight=0.5)}):
        assert not same_sampling(saved, settings(shapes_checkpoint, **other))


def test_one_cycle_ends_no_run_in_an_error() -> None:
    """PyTorch raises one after its last step, which a resumed run with more steps reaches."""
    check_run_length(one_cycle(0.3), 1, 10)
    for max_epochs, max_steps in ((1, 11), (-1, -1)):
        with pytest.raises(UserError, match="OneCycleLR has total_steps 10, and the run"):
            check_run_length(one_cycle(0.3), max_epochs, max_steps)


@pytest.fixture(scope="module")
def run(shapes_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a run of two steps, which has ended."""
    folder = tmp_path_factory.mktemp("resumed") / "runs"
    arguments = fit_arguments(folder, shapes_checkpoint, max_epochs=-1, max_steps=2)
    log = folder.parent / "log"
    assert run_forked(partial(main, [*arguments, "--export", "false"]), log) == 0, log.read_text()
    return arguments


def folder_of(arguments: list[str]) -> Path:
    return Path(arguments[-1]).with_suffix("") / "a run"


def test_fit_and_doctor_refuse_before_anything_is_written(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["unirl.cli.doctor"], "check_resources", lambda *_: [])
    (version,), log = folder_of(run).iterdir(), tmp_path / "log"

    def found(*options: str) -> list[str]:
        findings = examine([*run[1:], "--ckpt_path", "last", *options])
        return [f"{one.level} {one}" for one in findings if one.subject == "resume"]

    lr = ["--model.optimizer.lr", "0.1"]
    assert run_forked(partial(main, [*run, "--ckpt_path", "last", *lr]), log) == 2
    message = log.read_text().splitlines()[-1]
    assert "model.optimizer.lr is 0.1, and was 0.0002 when" in message
    assert found(*lr) == [message.removeprefix("unirl: ").replace(": ", " ", 1)]
    other, fits = found("--trainer.max_steps", "3", "--model.rollout.group_size", "3")
    assert other.endswith("hold from step 2 on: trainer.max_steps 3 (was 2), model.rollout.group_size 3 (was 2)")
    assert fits.endswith("at step 2, fits this run")
    assert list(folder_of(run).iterdir()) == [version]


def test_a_checkpoint_without_settings_is_known_by_its_tensors(
    run: list[str], shapes_checkpoint: Path, tmp_path: Path
) -> None:
    """Such as one of an older version. The model is built without weights."""
    (version,), old = folder_of(run).iterdir(), tmp_path / "old.ckpt"
    checkpoint = torch.load(version / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint.pop(SETTINGS)["model.optimizer"]["lr"] == 2e-4
    AtomicCheckpointIO().save_checkpoint(checkpoint, old)
    cases: dict[str, dict[str, Any]] = {
        "": {"optimizer": torch.optim.AdamW},
        "model.exclude_frozen_parameters: true": {"exclude_frozen_parameters": False},
        "set model.lora: null": {"lora": LoRA(rank=2)},
        "optimizer states of": {"trainable_modules": ["self_attn"]},
        "trainer.max_steps is 1, and": {"max_steps": 1},
    }
    for expected, options in cases.items():
        made = Trainer(accelerator="cpu", max_steps=options.pop("max_steps", 5), enable_checkpointing=False, **QUIET)
        arguments: dict[str, Any] = {"exclude_frozen_parameters": True} | options
        model = SelfImprovement(Showo(str(shapes_checkpoint)), SFT(), [Keyword()], **arguments)
        resumed = SimpleNamespace(subcommand="fit", model=model, datamodule=None, trainer=made, ckpt_path=old)
        resumed.config_text = lambda: checkpoint[CONFIG]
        findings = [str(one) for one in check_resume(resumed)]
        assert len(findings) == bool(expected), findings
        assert not findings or expected in findings[0]


def test_a_plain_trainer_refuses_what_the_checkpoint_holds(shapes_checkpoint: Path, tmp_path: Path) -> None:
    def fit(lr: float, ckpt_path: Path | None = None) -> None:
        module = SelfImprovement(
            Showo(str(shapes_checkpoint)),
            SFT(),
            [Keyword()],
            rollout=RolloutConfig(2, image_sampling=ImageSampling(2), accept_threshold=0.0),
            optimizer=lambda p: torch.optim.AdamW(p, lr=lr),
        )
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        options: dict[str, Any] = {"max_steps": 2 if ckpt_path else 1, "limit_val_batches": 0, "callbacks": [saving]}
        data = PromptsDataModule(ShapesPrompts(), 2, 4, 0)
        Trainer(accelerator="cpu", inference_mode=False, **QUIET, **options).fit(module, data, ckpt_path=ckpt_path)

    fit(1e-3)
    with pytest.raises(UserError, match=r"model\.optimizer\.lr is 0\.5, and was 0\.001 when .*step=1\.ckpt was saved"):
        fit(0.5, tmp_path / "step=1.ckpt")


def test_a_path_that_is_no_checkpoint_names_the_option_that_takes_it(
    shapes_checkpoint: Path, run: list[str], tmp_path: Path
) -> None:
    (version,) = folder_of(run).iterdir()
    newest = version / "checkpoints" / "epoch=0-step=2.ckpt"
    (tmp_path / "empty").mkdir()
    start = "--model.backbone.init_args.checkpoint"
    cases = {
        str(shapes_checkpoint): f"a model in its public format, .* to start from it: {start} {shapes_checkpoint}",
        str(next(shapes_checkpoint.glob("*.safetensors"))): f"to start from it: {start} {shapes_checkpoint}",
        "owner/model": f"no checkpoint at 'owner/model'.*{start} owner/model",
        "unirl_shapes:checkpoints/showo": f"{start} unirl_shapes:checkpoints/showo",
        str(version): f"is a folder, not a checkpoint of a run; its newest checkpoint: --ckpt_path {newest}",
        str(version / "config.yaml"): f"is a file, .* --ckpt_path {newest}",
        str(tmp_path / "empty"): "it has no checkpoint",
    }
    for path, expected in cases.items():
        with pytest.raises(UserError, match=expected):
            check_ckpt_path(path)
    check_ckpt_path(str(newest))
    assert "it needs no export" in str(no_checkpoint_message(shapes_checkpoint, "--ckpt"))
    with pytest.raises(
        UserError, match=r"is a checkpoint of a run, .* unirl export --ckpt .* --ckpt_path .*step=2\.ckpt"
    ):
        locate_local(str(newest))
    (tmp_path / "run" / "pretrained").mkdir(parents=True)
    (tmp_path / "run" / "pretrained" / "config.json").touch()
    with pytest.raises(UserError, match=r"is the folder of a run; give the model in it: .*pretrained"):
        locate_local(str(tmp_path / "run"))


def test_shards_need_a_strategy_that_loads_them(tmp_path: Path) -> None:
    for name in (META, METADATA):
        (tmp_path / name).touch()
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, **QUIET)
    with pytest.raises(UserError, match=r"is a sharded checkpoint, .* set trainer\.strategy: fsdp2, or .*unirl export"):
        check_strategy(tmp_path, trainer.strategy)
