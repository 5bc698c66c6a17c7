"""Options of the Trainer that do not fit a run are refused in one sentence; the others pass."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    OnExceptionCheckpoint,
    Timer,
)
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from unirl.callbacks import Guards, LogImages, StopOnSigterm
from unirl.cli.main import main
from unirl.cli.trainer_options import check_trainer_options, trainer_error
from unirl.errors import UserError

DEFAULTS = {
    **dict.fromkeys(("callbacks", "plugins", "profiler", "gradient_clip_val", "gradient_clip_algorithm", "logger")),
    **{"barebones": False, "overfit_batches": 0.0, "enable_checkpointing": None, "accumulate_grad_batches": 1},
    "default_root_dir": "runs",
}
CONFIG = Path(__file__).parents[2] / "configs" / "showo_sft.yaml"


def check(**options: Any) -> None:
    check_trainer_options(Namespace(DEFAULTS | options))


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"barebones": True}, "trainer.barebones: true: it switches off"),
        ({"overfit_batches": 0.5}, "trainer.overfit_batches 0.5: prompts are drawn anew"),
        ({"overfit_batches": 3}, "trainer.overfit_batches 3: prompts"),
        (
            {"enable_checkpointing": False, "callbacks": [ModelCheckpoint()]},
            "trainer.enable_checkpointing: false, and trainer.callbacks has ModelCheckpoint, which saves",
        ),
        (
            {"enable_checkpointing": False, "callbacks": OnExceptionCheckpoint(".")},
            "trainer.enable_checkpointing: false, and trainer.callbacks has OnExceptionCheckpoint",
        ),
        ({"callbacks": [BackboneFinetuning()]}, "trainer.callbacks: BackboneFinetuning cannot be used: "),
        ({"callbacks": [BatchSizeFinder()]}, "trainer.callbacks: BatchSizeFinder cannot be used: "),
        ({"callbacks": [LearningRateFinder()]}, "trainer.callbacks: LearningRateFinder cannot be used: "),
        ({"callbacks": [ModelPruning("l1_unstructured")]}, "trainer.callbacks: ModelPruning cannot be used: "),
        ({"callbacks": [Guards()]}, "trainer.callbacks: Guards is part of every run; set its options under guards"),
        (
            {"callbacks": [LogImages()]},
            "trainer.callbacks: LogImages is part of every run; set its options under images",
        ),
        ({"callbacks": [StopOnSigterm()]}, "trainer.callbacks: StopOnSigterm is part of every run; leave it out"),
        ({"callbacks": [LearningRateMonitor()], "logger": False}, "trainer.callbacks: LearningRateMonitor writes to"),
        (
            {"callbacks": [GradientAccumulationScheduler({0: 2})], "accumulate_grad_batches": 2},
            "trainer.accumulate_grad_batches 2, and trainer.callbacks has GradientAccumulationScheduler",
        ),
        ({"plugins": AsyncCheckpointIO()}, "trainer.plugins: AsyncCheckpointIO cannot be used: "),
        ({"profiler": "simpel"}, "trainer.profiler 'simpel'; nearest: simple"),
        ({"profiler": "xla"}, "trainer.profiler 'xla' is for TPUs"),
        ({"gradient_clip_algorithm": "value"}, "trainer.gradient_clip_algorithm value: without"),
        ({"default_root_dir": "nope://x"}, "trainer.default_root_dir nope://x: Protocol not known: nope"),
        (
            {"default_root_dir": "memory://x", "callbacks": [ModelCheckpoint(save_last="link")]},
            "trainer.default_root_dir memory://x, and ModelCheckpoint has save_last: link",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], start: str) -> None:
    with pytest.raises(UserError) as caught:
        check(**options)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


def test_options_that_fit_pass() -> None:
    callbacks = [ModelCheckpoint(save_last="link"), LearningRateMonitor(), Timer(timedelta(hours=1))]
    check(callbacks=callbacks, gradient_clip_val=1.0, gradient_clip_algorithm="value", profiler="pytorch")
    check(enable_checkpointing=False, plugins=[TorchCheckpointIO()], default_root_dir="memory://x")
    check(callbacks=GradientAccumulationScheduler({0: 2}))


def test_what_the_trainer_itself_refuses_is_one_line() -> None:
    text = "Found more than one stateful callback of type `EarlyStopping`. In the current configuration, ..."
    assert str(trainer_error(RuntimeError(text))).startswith("trainer.callbacks: several EarlyStopping with the same")
    assert str(trainer_error(ValueError("got <A object at 0x7f0e734a4650>"))) == "trainer: got <A>"


def test_a_timer_is_written_to_the_config_and_the_doctor_names_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unirl.cli.doctor.check_import_name", list)
    monkeypatch.setattr("unirl.cli.doctor.check_resources", lambda *_: iter(()))
    timer = "[{class_path: lightning.pytorch.callbacks.Timer, init_args: {duration: '00:01:00:00'}}]"
    Path("timer.yaml").write_text(f"trainer: {{callbacks: {timer}}}")
    main(["doctor", "--config", str(CONFIG), "--config", "timer.yaml"])
    with pytest.raises(SystemExit):
        main(["doctor", "--config", str(CONFIG), "--trainer.limit_val_batches", "1.5"])
    out, err = capsys.readouterr()
    assert "error  trainer " in out  # not "devices", with advice about those of this machine
    assert "CPU cores" not in out
    assert err == "unirl: error: fit would not start: trainer; see above\n"
