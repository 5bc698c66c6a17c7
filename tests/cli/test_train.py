"""The command line on stand-ins: names for class paths, merged configs, errors of one line."""

import importlib
import sys
from importlib import metadata
from pathlib import Path

import pytest

from unirl.cli.main import COMMANDS, main
from unirl.hooks.host import host

BASE = """
model:
  backbone: {class_path: tiny, init_args: {checkpoint: a, size: 5}}
  update: plain
  rewards: [{class_path: same, init_args: {words: 4}}]
data: {prompts: same}
trainer:
  {max_steps: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false,
   logger: false, enable_checkpointing: false}
"""


@pytest.fixture(autouse=True)
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The stand-ins, installed as a plugin, in an empty working directory that holds `base.yaml`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("standins")
    module.install(tmp_path, "demoplug", module.PLUGIN)
    run = importlib.import_module("unirl.cli.train")
    monkeypatch.setattr(run, "SelfImprovement", module.Model)
    monkeypatch.setattr(run, "PromptsDataModule", module.Data)
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    monkeypatch.setattr(module.Model, "last", None)
    found = list(metadata.distributions(path=[str(tmp_path)]))
    monkeypatch.setattr(metadata, "entry_points", lambda group: [e for d in found for e in d.entry_points])
    host.cache_clear()
    yield module
    sys.modules.pop("demoplug", None)
    host.cache_clear()


@pytest.fixture
def fit(standin):
    """Runs `unirl fit` on `base.yaml`, an overlay and arguments; gives the model."""

    def run(overlay: str | None = None, *args: str):
        if overlay is not None:
            Path("over.yaml").write_text(overlay)
            args = ("--config", "over.yaml", *args)
        main(["fit", "--config", "base.yaml", *args])
        return standin.Model.last

    return run


@pytest.fixture
def refused(fit, capsys):
    """The one line on stderr after a mistake; nothing may be left behind."""

    def run(overlay: str | None = None, *args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            fit(overlay, *args)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        lines = [line for line in error.splitlines() if not line.startswith(("INFO", "Seed", "GPU", "TPU", "HPU"))]
        assert len(lines) == 1, error
        assert not Path("runs").exists()
        return lines[0].removeprefix("unirl: error: ")

    return run


def test_names_stand_for_class_paths_and_the_kind_decides(fit, standin) -> None:
    model = fit()
    assert isinstance(model.backbone, standin.Tiny)
    assert (model.backbone.checkpoint, model.backbone.size) == ("a", 5)
    assert [type(reward) for reward in model.rewards] == [standin.Words]
    assert isinstance(model.trainer.datamodule.prompts, standin.Fixed)


@pytest.mark.parametrize(
    "overlay",
    [
        "model: {backbone: {init_args: {checkpoint: b}}}",
        "model: {backbone: {checkpoint: b}}",
        "model: {backbone: {class_path: tiny, init_args: {checkpoint: b}}}",
        "model: {backbone: {class_path: standins.Tiny, init_args: {checkpoint: b}}}",
        "model.backbone.init_args.checkpoint: b",
    ],
)
def test_an_overlay_merges_into_the_same_class(fit, overlay: str) -> None:
    backbone = fit(overlay).backbone
    assert (backbone.checkpoint, backbone.size) == ("b", 5)


@pytest.mark.parametrize(
    "args",
    [
        ("--model.backbone", "other", "--model.backbone.checkpoint", "b"),
        ("--model.backbone=other", "--model.backbone.init_args.checkpoint=b"),
        ("--model.backbone.class_path", "other", "--model.backbone.checkpoint", "b"),
        ("--model.backbone", "standins.Other", "--model.backbone.checkpoint", "b"),
        ("--model.backbone", "{class_path: other, init_args: {checkpoint: b}}"),
    ],
)
def test_names_on_the_command_line(fit, standin, args: tuple[str, ...]) -> None:
    backbone = fit(None, *args).backbone
    assert isinstance(backbone, standin.Other)
    assert backbone.checkpoint == "b"


def test_lists_of_names(fit, standin) -> None:
    assert [r.weight for r in fit("model: {rewards: same}", "--model.rewards.weight", "2").rewards] == [2]
    assert [r.words for r in fit(None, "--model.rewards+", "same", "--model.rewards.words=7").rewards] == [4, 7]
    assert len(fit("model: {rewards: [same, standins.Words]}").rewards) == 2
    assert isinstance(fit(None, "--model.judge", "eye", "--data.prompts", "same").judge, standin.Eye)
    assert isinstance(fit("model: {judge: eye}").judge, standin.Eye)


def test_names_inside_a_plugins_own_arguments(fit, standin) -> None:
    inside = "{parts: [same, {class_path: same, init_args: {words: 9}}], inner: {class_path: same}}"
    (both,) = fit(f"model: {{rewards: [{{class_path: both, init_args: {inside}}}]}}").rewards
    assert [part.words for part in both.parts] == [1, 9]
    assert isinstance(both.inner, standin.Words)


def test_numbers_keep_their_type_through_the_loader(fit) -> None:
    model = fit('model: {lr: 1e-4, backbone: {checkpoint: "1e5"}, sampling: {steps: 3}, betas: [0.5, .9]}')
    assert (model.lr, model.backbone.checkpoint, model.sampling.steps, model.betas) == (1e-4, "1e5", 3, (0.5, 0.9))


MISTAKES = {
    "unknown name": ("model: {backbone: tinny}", "over.yaml: unknown backbone 'tinny'; nearest: tiny"),
    "name of another kind": ("model: {backbone: both}", "unknown backbone 'both'"),
    "unknown nested name": (
        "model: {rewards: [{class_path: both, init_args: {parts: [sme]}}]}",
        "over.yaml: unknown reward 'sme'; nearest: same",
    ),
    "option": ("model: {lrr: 3}", "over.yaml: no option 'model.lrr'; nearest: model.lr"),
    "group": ("modl: {lr: 3}", "over.yaml: no option 'modl'; nearest: model"),
    "dataclass option": (
        "model: {sampling: {step: 3}}",
        "over.yaml: no option 'model.sampling.step'; nearest: model.sampling.steps",
    ),
    "plugin option": (
        "model: {backbone: {init_args: {checkpont: b}}}",
        "over.yaml: model.backbone: no option 'checkpont'; nearest: checkpoint (in standins.Tiny)",
    ),
    "callback option": (
        "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {savetop: 1}}]}",
        "over.yaml: trainer.callbacks: no option 'savetop'; nearest: save_top_k",
    ),
    "type": ("model: {lr: abc}", "over.yaml: model.lr: expected float, got abc"),
    "plugin type": (
        "model: {backbone: {init_args: {size: abc}}}",
        "over.yaml: model.backbone.size: expected int, got abc (in standins.Tiny)",
    ),
    "union type": ("trainer: {max_epochs: abc}", "over.yaml: trainer.max_epochs: expected int or null, got abc"),
    "class": ("model: {backbone: standins.Words}", "does not correspond to a subclass of Backbone"),
    "module": ("model: {backbone: x.y.Z}", "over.yaml: model.backbone: No module named 'x' (in x.y.Z)"),
    "optional module": ("model: {judge: x.y.Z}", "over.yaml: model.judge: No module named 'x' (in x.y.Z)"),
    "plugin import": ("model: {rewards: gone}", "reward 'gone' of demoplug 1.0 (no_such_module:Gone) cannot be used: "),
    "yaml": ("model:\n  a: [1\n  b: 3\n", "over.yaml: line 3: not valid YAML:"),
    "empty": ("", "over.yaml: expected options by name"),
    "constructor": (
        "model: {rewards: [{class_path: same, init_args: {words: -1}}]}",
        "words must be 0 or more, got -1",
    ),
    "build": (
        "{model: {backbone: {checkpoint: missing}}, trainer: {logger: null}}",
        "backbone.checkpoint: nothing at 'missing'",
    ),
    "step": ("{model: {fail_at: step}, trainer: {logger: null}}", "reward 'same' returned nan"),
    "trainer": ("trainer: {accelerator: gppu}", "trainer: You selected an invalid accelerator name"),
}


@pytest.mark.parametrize(("overlay", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_config_is_one_line(refused, overlay: str, message: str) -> None:
    assert message in refused(overlay)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model.lrr", "3"), "no option 'model.lrr'; nearest: model.lr"),
        (("--model.lrr=3",), "no option 'model.lrr'; nearest: model.lr"),
        (("--model.lr=abc",), "model.lr: expected float, got abc"),
        (("--model.lr",), "argument --model.lr: expected one argument"),
        (("--model.group", "3"), "no option 'model.group'; nearest: model.group_size"),
        (("--model.backbone", "tinny"), "unknown backbone 'tinny'; nearest: tiny"),
        (("--model.backbone.checkpont=b",), "no option 'checkpont'; nearest: checkpoint"),
        (("--model.backbone.size=abc",), "model.backbone.size: expected int, got abc"),
        (("--config", "none.yaml"), "File does not exist"),
        (("--ckpt_path", "none.ckpt"), "no checkpoint at 'none.ckpt'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(refused, args: tuple[str, ...], message: str) -> None:
    assert message in refused(None, *args)


def test_missing_options_are_named(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--data.prompts=same"])
    required = "model.backbone, model.update, model.rewards"
    assert capsys.readouterr().err == f"unirl: error: the following arguments are required: {required}\n"


def test_an_interrupt_exits_with_130(fit, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        fit("model: {fail_at: interrupt}")
    assert caught.value.code == 130
    assert capsys.readouterr().err.endswith("unirl: interrupted\n")


def test_a_run_saves_its_config_and_goes_on_from_it(fit, standin) -> None:
    fit("{name: first, trainer: {logger: null}}", "--trainer.enable_checkpointing=true")
    folder = Path("runs/first/version_0")
    saved = folder / "config.yaml"
    assert "class_path: standins.Tiny" in saved.read_text()

    (checkpoint,) = folder.glob("checkpoints/*.ckpt")
    resume = ["--config", str(saved), "--ckpt_path", str(checkpoint)]
    main(["fit", *resume, "--trainer.max_steps=2", "--model.lr=0.5"])
    model = standin.Model.last
    assert (model.trainer.global_step, model.backbone.size, model.lr) == (2, 5, 0.5)
    assert Path("runs/first/version_1/config.yaml").exists()
    for command in ("validate", "test"):
        main([command, *resume])
        assert standin.Model.last.trainer.callback_metrics["seen"] == 1


def test_trainer_defaults(fit) -> None:
    trainer = fit().trainer
    assert not trainer.fit_loop.epoch_loop.val_loop.inference_mode
    assert not trainer._accelerator_connector.use_distributed_sampler
    assert trainer.log_every_n_steps == 1


def test_help_and_plugins(capsys) -> None:
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {name}" in shown for name in COMMANDS)
    main(["plugins"])
    assert "demoplug 1.0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", "--model.backbone.help", "tiny"])
    assert "--model.backbone.size" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["ft"], ["plugins", "x"], ["--fit"]])
def test_an_unknown_command_is_one_line(argv: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
