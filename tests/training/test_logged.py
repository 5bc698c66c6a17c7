"""Which metrics a run logs is known before it starts, and a watched metric without a value ends no run."""

from pathlib import Path
from typing import Any

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from unirl.backbones.showo import Showo
from unirl.callbacks import Guards, QualityControl, TaskGradientNorms, fault_tolerance_callbacks
from unirl.rewards.keyword import Keyword
from unirl.training.logged import logged_metrics
from unirl.types import AnswerSampling
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.judge import ShapesJudge

MAY_BE_MISSING = ("val/self_reward/", "val/consistency/")
"""Metrics that have no value where every image is correct, or none."""


class Foreign(Callback):
    """A callback that may log anything."""


def test_the_names_that_are_known_before_a_run_are_those_it_logs(
    runs: Any, shapes_checkpoint: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"judge": ShapesJudge(), "num_understanding": 6, "num_diversity_prompts": 2}
    options |= {"answer_sampling": AnswerSampling(4, temperature=1.0)}
    rule = GRPO(answer_labels="posterior")
    model = runs.module(Showo(str(shapes_checkpoint)), rule, [Keyword(), Keyword()], **options)
    data = runs.data(num_val_prompts=6, sampler="adaptive", steps_per_epoch=1)
    watching = [Guards(), QualityControl(max_saturation=0.9), TaskGradientNorms(), Foreign()]
    saving = ModelCheckpoint(tmp_path, "{reward:.1f}-{epoch}-{missing:.1f}", "nothing", auto_insert_metric_name=False)
    callbacks = [*watching, EarlyStopping("nothing"), *fault_tolerance_callbacks(), saving]
    expected = logged_metrics(model, data, callbacks)
    assert expected is not None
    assert expected.others == ("Foreign",)
    trainer = runs.trainer(tmp_path, max_epochs=2, num_sanity_val_steps=0, callbacks=callbacks)
    with pytest.warns(UserWarning, match="watches 'nothing'"):
        trainer.fit(model, data)  # Lightning would end it after the first epoch
    logged = {name for name in trainer.callback_metrics if not name.startswith(MAY_BE_MISSING)}
    assert logged == {name for name in expected.names if not name.startswith(MAY_BE_MISSING)}
    assert {name for name in trainer.callback_metrics if name.startswith(MAY_BE_MISSING)} <= {*expected.names}
    assert set(expected.validation) == {name for name in expected.names if name.startswith("val/")}
    assert trainer.global_step == 2
    (saved,) = tmp_path.glob("*.ckpt")  # the first one: what is not logged has the worst value
    assert saved.name.endswith("-0-nan.ckpt")


def test_names_depend_on_the_settings(runs: Any, shapes_checkpoint: Path) -> None:
    def names(rule: Any, **options: Any) -> set[str]:
        logged = logged_metrics(runs.module(Showo(str(shapes_checkpoint)), rule, [Keyword()], **options), data, [])
        assert logged is not None
        assert not logged.others
        return set(logged.names)

    data = runs.data(num_val_prompts=6)
    assert names(SFT(answer_beta=1.0)) - names(SFT()) == {"kl/answer"}
    assert "val/generation/overall" not in names(SFT())
    assert "val/diversity/codes" not in names(SFT(), num_diversity_prompts=0)
    judged = names(SFT(), judge=ShapesJudge(categories=["colors"]), num_understanding=2)
    assert {"val/generation/counting", "val/understanding/colors", "val/consistency/imbalance"} <= judged
    assert "val/understanding/counting" not in judged
    data = runs.data(num_val_prompts=0)
    assert not [name for name in names(SFT(), judge=ShapesJudge()) if name.startswith("val/")]
