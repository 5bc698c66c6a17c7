"""`unirl fit` on stand-ins: registered names, merged configs, errors of one line."""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from unirl.cli.main import COMMANDS, main
from unirl.hooks.host import host

BASE = """
model:
  backbone: {class_path: tiny, init_args: {checkpoint: a, size: 5}}
  update: zero
  rewards: [{class_path: fixed, init_args: {words: 4}}]
data: {prompts: fixed}
trainer:
  {max_steps: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false,
   logger: false, enable_checkpointing: false}
"""

FILE = """
import standins
from unirl import hookimpl

class Mine(standins.FixedReward):
    pass

class Other(standins.FixedReward):
    pass

@hookimpl
def unirl_register_rewards(register):
    register("mine", "my_plugin:Mine")
"""
REWARDS = ["FixedReward", "Other", "CombinedReward"]


@pytest.fixture(autouse=True)
def standins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs the stand-ins as a plugin, in a working directory with `base.yaml`."""
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
def fit(standins):
    """Runs `unirl fit` with `base.yaml`, an overlay and arguments, and returns the model."""

    def run(overlay: str | None = None, *args: str):
        if overlay is not None:
            Path("over.yaml").write_text(overlay)
            args = ("--config", "over.yaml", *args)
        main(["fit", "--config", "base.yaml", *args])
        return standins.Model.last

    return run


@pytest.fixture
def error(fit, capsys):
    """Runs `fit`, which must fail and leave no files, and returns the one line on stderr."""

    def run(overlay: str | None = None, *args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            fit(overlay, *args)
        assert caught.value.code == 2
        stderr = capsys.readouterr().err
        lines = [line for line in stderr.splitlines() if not line.startswith(("INFO", "Seed", "GPU", "TPU", "HPU"))]
        assert len(lines) == 1, stderr
        assert not Path("runs").exists()
        return lines[0].removeprefix("unirl: error: ")

    return run


def test_registered_names_become_class_paths_by_kind(fit, standins) -> None:
    model = fit()
    assert isinstance(model.backbone, standins.TinyBackbone)
    assert (model.backbone.checkpoint, model.backbone.size) == ("a", 5)
    assert [type(reward) for reward in model.rewards] == [standins.FixedReward]
    assert isinstance(model.trainer.datamodule.prompts, standins.FixedPrompts)


@pytest.mark.parametrize(
    "overlay",
    [
        "model: {backbone: {init_args: {checkpoint: b}}}",
        "model: {backbone: {checkpoint: b}}",
        "model: {backbone: {class_path: tiny, init_args: {checkpoint: b}}}",
        "model: {backbone: {class_path: standins.TinyBackbone, init_args: {checkpoint: b}}}",
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
        ("--model.backbone", "standins.OtherBackbone", "--model.backbone.checkpoint", "b"),
        ("--model.backbone", "{class_path: other, init_args: {checkpoint: b}}"),
    ],
)
def test_names_on_the_command_line(fit, standins, args: tuple[str, ...]) -> None:
    backbone = fit(None, *args).backbone
    assert isinstance(backbone, standins.OtherBackbone)
    assert backbone.checkpoint == "b"


def test_lists_of_names(fit, standins) -> None:
    assert [r.weight for r in fit("model: {rewards: fixed}", "--model.rewards.weight", "2").rewards] == [2]
    assert [r.words for r in fit(None, "--model.rewards+", "fixed", "--model.rewards.words=7").rewards] == [4, 7]
    assert len(fit("model: {rewards: [fixed, standins.FixedReward]}").rewards) == 2
    assert isinstance(fit(None, "--model.judge", "always", "--data.prompts", "fixed").judge, standins.AlwaysJudge)
    assert isinstance(fit("model: {judge: always}").judge, standins.AlwaysJudge)


def test_names_inside_a_plugins_own_arguments(fit, standins) -> None:
    inside = "{parts: [fixed, {class_path: fixed, init_args: {words: 9}}], inner: {class_path: fixed}}"
    (combined,) = fit(f"model: {{rewards: [{{class_path: combined, init_args: {inside}}}]}}").rewards
    assert [part.words for part in combined.parts] == [1, 9]
    assert isinstance(combined.inner, standins.FixedReward)


def test_numbers_keep_their_type(fit) -> None:
    overlay = """
model:
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4, betas: [0.5, .9]}}
  backbone: {checkpoint: "1e5"}
  rollout: {image_sampling: {steps: 3}}
"""
    model = fit(overlay)
    (group,) = model.optimizers().param_groups
    assert (group["lr"], group["betas"]) == (1e-4, (0.5, 0.9))
    assert (model.backbone.checkpoint, model.rollout.image_sampling.steps) == ("1e5", 3)


def test_the_optimizer_is_any_class_and_its_options_merge(fit) -> None:
    config = "model: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.2, weight_decay: 0.3}}}"
    merged = fit(config, "--model.optimizer.lr", "1e-4").optimizers().optimizer
    assert (type(merged), merged.defaults["lr"], merged.defaults["weight_decay"]) == (torch.optim.AdamW, 1e-4, 0.3)
    for name in ("torch.optim.SGD", "SGD"):
        replaced = fit(config, "--model.optimizer", name, "--model.optimizer.lr", "0.1").optimizers().optimizer
        assert (type(replaced), replaced.defaults["lr"]) == (torch.optim.SGD, 0.1)


MISTAKES = {
    "unknown name": ("model: {backbone: tinny}", "over.yaml: unknown backbone 'tinny'; nearest: tiny"),
    "name of another kind": ("model: {backbone: combined}", "unknown backbone 'combined'"),
    "unknown nested name": (
        "model: {rewards: [{class_path: combined, init_args: {parts: [fixd]}}]}",
        "over.yaml: unknown reward 'fixd'; nearest: fixed",
    ),
    "option": ("model: {sed: 3}", "over.yaml: no option 'model.sed'; nearest: model.seed"),
    "group": ("modl: {seed: 3}", "over.yaml: no option 'modl'; nearest: model"),
    "dataclass option": (
        "model: {rollout: {image_sampling: {step: 3}}}",
        "over.yaml: no option 'model.rollout.image_sampling.step'; nearest: model.rollout.image_sampling.steps",
    ),
    "plugin option": (
        "model: {backbone: {init_args: {checkpont: b}}}",
        "over.yaml: model.backbone: no option 'checkpont'; nearest: checkpoint (in standins.TinyBackbone)",
    ),
    "callback option": (
        "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {savetop: 1}}]}",
        "over.yaml: trainer.callbacks: no option 'savetop'; nearest: save_top_k",
    ),
    "optimizer option": (
        "model: {optimizer: {class_path: torch.optim.SGD, init_args: {lrr: 1}}}",
        "over.yaml: model.optimizer: no option 'lrr'; nearest: lr (in torch.optim.SGD)",
    ),
    "optimizer class": (
        "model: {optimizer: torch.optim.SGDD}",
        "over.yaml: model.optimizer: module 'torch.optim' has no class 'SGDD'; nearest: SGD, ASGD",
    ),
    "optimizer name": (
        "model: {optimizer: SGDD}",
        "over.yaml: model.optimizer: no class SGDD; give its full class path",
    ),
    "optimizer type": (
        "model: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: abc}}}",
        "over.yaml: model.optimizer.lr: expected float, got abc (in torch.optim.SGD)",
    ),
    "group as a value": (
        "model: {rollout: 3}",
        "over.yaml: model.rollout: expected options by name below it, got 3",
    ),
    "type": ("model: {seed: abc}", "over.yaml: model.seed: expected int or null, got abc"),
    "plugin type": (
        "model: {backbone: {init_args: {size: abc}}}",
        "over.yaml: model.backbone.size: expected int, got abc (in standins.TinyBackbone)",
    ),
    "union type": ("trainer: {max_epochs: abc}", "over.yaml: trainer.max_epochs: expected int or null, got abc"),
    "class": ("model: {backbone: standins.FixedReward}", "does not correspond to a subclass of Backbone"),
    "module": (
        "model: {backbone: x.y.Z}",
        "No module named 'x' (in x.y.Z); if it is a file, load it with --plugin x.py",
    ),
    "optional module": ("model: {judge: x.y.Z}", "over.yaml: model.judge: No module named 'x' (in x.y.Z)"),
    "plugin import": (
        "model: {rewards: missing}",
        "reward 'missing' of demoplug 1.0 (no_such_module:Missing) cannot be used: ",
    ),
    "yaml": ("model:\n  a: [1\n  b: 3\n", "over.yaml: line 3: not valid YAML:"),
    "empty": ("", "over.yaml: expected options by name"),
    "constructor": (
        "model: {rewards: [{class_path: fixed, init_args: {words: -1}}]}",
        "words must be 0 or more, got -1",
    ),
    "build": (
        "{model: {backbone: {checkpoint: missing}}, trainer: {logger: null}}",
        "backbone.checkpoint: nothing at 'missing'",
    ),
    "step": ("{model: {fail_at: step}, trainer: {logger: null}}", "reward 'fixed' returned nan"),
    "trainer": ("trainer: {accelerator: gppu}", "trainer: You selected an invalid accelerator name"),
}


@pytest.mark.parametrize(("overlay", "message"), MISTAKES.values(), ids=MISTAKES)
def test_an_error_in_a_config_is_one_line(error, overlay: str, message: str) -> None:
    assert message in error(overlay)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model.sed", "3"), "no option 'model.sed'; nearest: model.seed"),
        (("--model.sed=3",), "no option 'model.sed'; nearest: model.seed"),
        (("--model.seed=abc",), "model.seed: expected int or null, got abc"),
        (("--model.seed",), "argument --model.seed: expected one argument"),
        (("--model.rollout.group", "3"), "no option 'model.rollout.group'; nearest: model.rollout.group_size"),
        (("--model.rollout", "3"), "model.rollout: expected options by name, or the path of a config, got 3"),
        (("--model.optimizer.lrr", "3"), "model.optimizer: no option 'lrr'; nearest: lr (in torch.optim.AdamW)"),
        (("--model.optimizer.lr", "abc"), "model.optimizer.lr: expected float, got abc (in torch.optim.AdamW)"),
        (("--model.optimizer", "torch.optim.SGDD"), "module 'torch.optim' has no class 'SGDD'; nearest: SGD, ASGD"),
        (("--model.backbone", "tinny"), "unknown backbone 'tinny'; nearest: tiny"),
        (("--model.backbone.checkpont=b",), "no option 'checkpont'; nearest: checkpoint"),
        (("--model.backbone.size=abc",), "model.backbone.size: expected int, got abc"),
        (("--config", "none.yaml"), "File does not exist"),
        (("--ckpt_path", "none.ckpt"), "no checkpoint at 'none.ckpt'"),
    ],
)
def test_an_error_on_the_command_line_is_one_line(error, args: tuple[str, ...], message: str) -> None:
    assert message in error(None, *args)


def test_missing_options_are_named(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--data.prompts=fixed"])
    required = "model.backbone, model.update, model.rewards; give them in a file: --config FILE"
    assert capsys.readouterr().err == f"unirl: error: the following arguments are required: {required}\n"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "doctor"])
def test_a_command_without_options_names_what_is_missing(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "required: model.backbone, model.update" in captured.out + captured.err
    assert captured.err.count("\n") == 1


def test_seed_everything_decides_the_seeds_that_are_not_given(fit) -> None:
    def seeds(overlay: str | None = None, *args: str) -> tuple[int, int]:
        model = fit(overlay, *args)
        return model.seed, model.trainer.datamodule.seed

    assert seeds() == (0, 0)
    assert seeds(None, "--seed_everything", "1") == seeds("seed_everything: 1") == (1, 1)
    assert seeds("model: {seed: 0}", "--seed_everything=2") == (0, 2)
    assert seeds(None, "--seed_everything=2", "--data.seed=3") == (2, 3)
    assert seeds(None, "--seed_everything=false") == (0, 0)
    saved = Path("runs/default/version_1/config.yaml")
    main(["fit", "--config", str(saved)])
    assert seeds(None, "--config", str(saved)) == (1, 1)
    assert seeds(None, "--config", str(saved), "--seed_everything=4") == (4, 4)


def test_an_interrupt_exits_with_130(fit, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        fit("model: {fail_at: interrupt}")
    assert caught.value.code == 130
    assert capsys.readouterr().err.endswith("unirl: interrupted\n")


def test_a_run_saves_its_config_and_resumes_from_it(fit, standins) -> None:
    fit("{name: first, trainer: {logger: null}}", "--trainer.enable_checkpointing=true")
    folder = Path("runs/first/version_0")
    saved = folder / "config.yaml"
    assert "class_path: tiny" in saved.read_text()

    (checkpoint,) = folder.glob("checkpoints/*.ckpt")
    resume = ["--config", str(saved), "--ckpt_path", str(checkpoint)]
    main(["fit", *resume, "--trainer.max_steps=2", "--model.seed=5"])
    model = standins.Model.last
    assert (model.trainer.global_step, model.backbone.size, model.seed) == (2, 5, 5)
    assert Path("runs/first/version_1/config.yaml").exists()
    for command in ("validate", "test"):
        main([command, *resume])
        assert standins.Model.last.trainer.callback_metrics["validated"] == 1


def test_the_config_of_a_run_with_a_plugin_file_repeats_it(fit, standins, monkeypatch) -> None:
    Path("files").mkdir()
    Path("files/my_plugin.py").write_text(FILE)
    rewards = "[mine, fixed, my_plugin.Other, {class_path: combined, init_args: {parts: [mine]}}]"
    overlay = f"{{name: first, model: {{rewards: {rewards}}}, trainer: {{logger: null}}}}"
    fit(overlay, "--plugin", "files/my_plugin.py", "--model.judge", "standins.AlwaysJudge")
    saved = Path("runs/first/version_0/config.yaml").resolve()
    config = yaml.safe_load(saved.read_text())
    assert config["plugin_options"] == f"--plugin {Path('files/my_plugin.py').resolve()}"
    model = config["model"]
    assert (model["backbone"]["class_path"], model["judge"]["class_path"]) == ("tiny", "always")
    assert [reward["class_path"] for reward in model["rewards"]] == ["mine", "fixed", "my_plugin.Other", "combined"]
    assert model["rewards"][3]["init_args"]["parts"][0]["class_path"] == "mine"
    assert model["optimizer"]["class_path"] == "torch.optim.AdamW"
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    main(["fit", "--config", str(saved)])
    assert [type(reward).__name__ for reward in standins.Model.last.rewards] == ["Mine", *REWARDS]
    sys.modules.pop("my_plugin")


@pytest.mark.parametrize(
    ("overlay", "args", "line"),
    [
        ("model: {backbone: other}", (), "it keeps checkpoint a, and drops size"),
        ("model: {backbone: {class_path: other, init_args: {checkpoint: b}}}", (), "it drops size"),
        (None, ("--model.backbone", "other"), "it keeps checkpoint a, and drops size"),
        (None, ("--model.backbone=other", "--model.backbone.checkpoint=b"), "it drops size"),
        ("model: {backbone: standins.TinyBackbone}", ("--model.backbone", "tiny"), ""),
        ("model: {backbone: {checkpoint: b}}", (), ""),
    ],
)
def test_options_of_a_class_that_is_replaced_are_named(fit, caplog, overlay, args, line) -> None:
    fit(overlay, *args)
    lines = [record.getMessage() for record in caplog.records if "replaces" in record.getMessage()]
    prefix = "model.backbone: other replaces tiny. Of the options given before, "
    assert lines == ([prefix + line] if line else [])


def test_options_of_an_optimizer_that_is_replaced_are_named(fit, caplog) -> None:
    config = "model: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-1, eps: 0.3}}}"
    options = fit(config, "--model.optimizer", "SGD").optimizers().optimizer.defaults
    assert (options["lr"], options["weight_decay"]) == (0.1, 0.0)  # not AdamW's default
    (line,) = [record.getMessage() for record in caplog.records if "replaces" in record.getMessage()]
    assert line.endswith("AdamW. Of the options given before, it keeps lr 1e-1, and drops eps"), line
    caplog.clear()
    options = fit(None, "--model.optimizer", "SGD").optimizers().optimizer.defaults
    assert (options["lr"], options["weight_decay"]) == (1e-5, 0.0)
    (line,) = [record.getMessage() for record in caplog.records if "replaces" in record.getMessage()]
    assert line.endswith("it keeps lr 1e-05"), line  # our default sets it


def test_trainer_defaults(fit) -> None:
    trainer = fit().trainer
    assert not trainer.fit_loop.epoch_loop.val_loop.inference_mode
    assert not trainer._accelerator_connector.use_distributed_sampler
    assert trainer.log_every_n_steps == 1


def test_what_a_run_prints_without_a_terminal(fit, standins, capsys) -> None:
    loud = ("--trainer.enable_progress_bar=true", "--trainer.enable_model_summary=true")
    fit(None, *loud)
    lines = capsys.readouterr()
    shown = [re.sub(r"[\d.]+(e-\d+)? s/", "T s/", line) for line in lines.out.splitlines()]
    assert shown[:2] == ["model: 1 parameters, 1 of them trained", "step 1/1, T s/step, 0:00:00 left"]
    noise = ("FLOPs", "TPU", "v_num", "estimate number of stepping", "already configured")
    assert not [text for text in noise if text in lines.out + lines.err]
    for command in ("validate", "test"):
        main([command, "--config", "base.yaml", *loud])
        assert capsys.readouterr().out == ""  # the results table is that of `ResultsTable`
    model = fit(None, "--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks+=ModelSummary", *loud)
    kinds = {type(callback).__name__ for callback in model.trainer.callbacks}
    assert kinds & {"TQDMProgressBar", "ModelSummary", "RunProgressBar", "ParameterCount"} == {
        "TQDMProgressBar",
        "ModelSummary",
    }


def test_fit_reads_the_config_that_validate_saved(fit) -> None:
    Path("over.yaml").write_text("{name: one, trainer: {logger: null}}")
    main(["validate", "--config", "base.yaml", "--config", "over.yaml"])
    main(["fit", "--config", "runs/one/version_0/config.yaml"])


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
def test_an_unknown_command_is_an_error_of_one_line(argv: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sigterm_ends_a_run_with_exit_code_0_in_every_version_of_lightning(fit, standins, monkeypatch) -> None:
    def stop(*_: object) -> None:
        error = SIGTERMException()
        error.code = 143  # as in Lightning 2.7
        raise error

    monkeypatch.setattr(standins.Model, "training_step", stop)
    with pytest.raises(SystemExit) as caught:
        fit()
    assert caught.value.code == 0
