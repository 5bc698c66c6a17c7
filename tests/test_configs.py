"""Every file of `configs/` parses and builds; models of public checkpoints on the meta device."""

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unirl.backbones.janus import Janus
from unirl.backbones.lora import select_trainable
from unirl.backbones.showo import Showo
from unirl.cli.main import main
from unirl.cli.train import Run
from unirl.distributed import strategies
from unirl.doctor.measure import measure
from unirl.doctor.resources import SPARE
from unirl.doctor.setup import setup_of
from unirl.hooks.host import plugin_options
from unirl.training import PromptsDataModule, SelfImprovement
from unirl.types import Rollout
from unirl.updates.grpo import GRPO
from unirl.updates.sft import SFT
from unirl_shapes.detector import detect_scene
from unirl_shapes.truth import answer

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
WEIGHTS = {"showo_256": 1.45e9, "showo_512": 1.45e9, "janus_1b": 2.0e9, "janus_pro_1b": 2.0e9, "janus_pro_7b": 7.3e9}
"""Trainable parameters without adapters."""
GROUP_SIZES = {"showo_256": 3, "showo_512": 3, "janus_1b": 8, "janus_pro_1b": 8, "janus_pro_7b": 8}
"""Of the paper's GRPO."""
DEVICES = {"1_gpu": 1, "8_gpus": 8, "2_nodes": 16}
PAGES = ("README.md", "docs/**/*.md", "configs/**/*.yaml", "plugins/*/README.md", "plugins/*/configs/*.yaml")
OWN_PLUGINS = ("my_rewards.py", "brightness")
"""Plugins that readers of the documentation write themselves."""


class Parsed(Run):
    """Parses and instantiates everything but the trainer, and runs nothing."""

    model: SelfImprovement
    datamodule: PromptsDataModule

    def instantiate_trainer(self, **kwargs: object) -> None:  # type: ignore[override]  # GPUs that are not here
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(*files: Path | str, more: Sequence[str] = ()) -> Parsed:
    strategies.register()
    arguments = [argument for file in files for argument in ("--config", str(CONFIGS / file))]
    return Parsed(SelfImprovement, PromptsDataModule, ["fit", *arguments, *more])


def trainable(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_overlays(recipe: str, model: str, hardware: str) -> None:
    parsed = parse(f"recipes/{recipe}.yaml", f"models/{model}.yaml", f"hardware/{hardware}.yaml")
    module, backbone, config = parsed.model, parsed.model.backbone, parsed.config[parsed.subcommand]
    assert isinstance(module.update, SFT if recipe == "sft" else GRPO)
    assert isinstance(backbone, Showo if "showo" in model else Janus)
    if recipe == "grpo":
        assert module.rollout.group_size == GROUP_SIZES[model]
    devices = config.trainer.devices * (config.trainer.num_nodes or 1)
    assert devices == DEVICES[hardware]
    assert parsed.datamodule.prompts_per_step % devices == 0
    assert module.judge is None
    assert module.rollout.image_sampling.guidance > 0
    (group,) = module.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 0.01)
    backbone.build(meta=True)
    assert all(p.is_meta for p in backbone.parameters())
    assert trainable(backbone) == pytest.approx(WEIGHTS[model], rel=0.05)
    tokenizer = backbone.image_tokenizer if isinstance(backbone, Showo) else backbone.transformer.base_model.vqmodel
    assert trainable(tokenizer) == 0
    assert (module.lora is not None) == (model == "janus_pro_7b" and hardware != "2_nodes")
    select_trainable(backbone, module.trainable_modules, module.lora)
    if module.lora is not None:  # four matrices of 30 layers, three of 24 layers of the vision tower
        assert trainable(backbone) == module.lora.rank * 2 * (30 * 4 * 4096 + 24 * 3 * 1024)


def stems(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))


def test_every_recipe_runs_every_model_and_on_every_hardware() -> None:
    """The files set different options, so pairs are enough: each recipe with each model, the hardware in turn."""
    assert set(stems("models")) == set(WEIGHTS)
    assert set(stems("hardware")) == set(DEVICES)
    problems = []
    pairs = list(itertools.product(stems("recipes"), stems("models")))
    for names in ((*pair, hardware) for pair, hardware in zip(pairs, itertools.cycle(stems("hardware")), strict=False)):
        try:
            check_overlays(*names)
        except Exception as error:  # all are reported
            problems.append(f"{' + '.join(names)}: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)


def test_the_fullest_overlay_fits_a_gpu_of_80_gb() -> None:
    """The others are in docs/clusters.md: measuring all of them takes a quarter of an hour."""
    run = parse("recipes/grpo.yaml", "models/showo_256.yaml", "hardware/1_gpu.yaml")
    measured = measure(run.model, run.datamodule, setup_of(run.config[run.subcommand].trainer, None))
    assert SPARE * measured.peak < 80e9
    assert not measured.left_out
    row = re.search(r"^\| `showo_256` \| ([\d.]+)", (ROOT / "docs" / "clusters.md").read_text(), re.MULTILINE)
    assert row is not None
    assert measured.peak / 1e9 == pytest.approx(float(row[1]), rel=0.02)


def test_all_overlays_of_the_table_fit_a_gpu_of_80_gb() -> None:
    page = (ROOT / "docs" / "clusters.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.+)\|$", page, re.MULTILINE))
    for model in stems("models"):
        peaks = [float(number) for number in re.findall(r"[\d.]+", rows[model])]
        assert len(peaks) == len(stems("recipes")) * len(stems("hardware")), model
        assert max(peaks) * SPARE < 80, model


def test_recipes_models_and_hardware_name_nothing_of_the_embedded_world() -> None:
    for folder in ("recipes", "models", "hardware"):
        for path in (CONFIGS / folder).glob("*.yaml"):
            assert "shapes" not in path.read_text(), path


def test_an_overlay_of_init_args_keeps_the_class_of_the_earlier_file(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    options = {
        "model": {
            "backbone": {"init_args": {"gradient_checkpointing": True}},
            "update": {"init_args": {"kl": {"beta": 0.3}}},
            "optimizer": {"init_args": {"lr": 0.001}},
        }
    }
    overlay.write_text(yaml.safe_dump(options))
    model = parse("showo_grpo.yaml", overlay).model
    assert isinstance(model.backbone, Showo)
    assert model.backbone.checkpoint == "unirl_shapes:checkpoints/showo"
    assert model.backbone.gradient_checkpointing
    assert isinstance(model.update, GRPO)
    assert model.update.betas == {"image": 0.3, "answer": 1.0}  # the other options of `kl` are kept, too
    assert model.update.scoring.num_masks == 2
    optimizer = model.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 0.001


def test_an_overlay_replaces_lists(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"model": {"rewards": ["attribute", "likelihood"]}}))
    assert [reward.name for reward in parse("showo_grpo.yaml", overlay).model.rewards] == ["attribute", "likelihood"]


def commands() -> list[list[str]]:
    """The arguments of each `unirl fit --config configs/...` of the documentation and of the configs themselves."""
    found = []
    for page in (page for pattern in PAGES for page in sorted(ROOT.glob(pattern))):
        text = re.sub(r"\\\n#?\s*", " ", page.read_text())  # continued lines
        for line in re.findall(r"unirl fit (--config [\w-]+/[^`\n]+)", text):
            words = shlex.split(line, comments=True)
            needs_a_run = "--ckpt_path" in line and "--ckpt_path last" not in line
            if not needs_a_run and not any(word in line for word in ("...", *OWN_PLUGINS)):
                found.append(["0" if word == "S" else word for word in words])
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def test_every_command_that_the_documentation_names_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    strategies.register()
    problems = []
    for words in commands():
        try:
            with plugin_options(words) as rest:
                Parsed(SelfImprovement, PromptsDataModule, ["fit", *rest])
        except Exception as error:  # all are reported
            problems.append(f"{shlex.join(words)}: {type(error).__name__}: {error}")
    assert not problems, "\n".join(problems)
    named = {word for words in commands() for word in words}
    missing = [path for path in sorted(CONFIGS.rglob("*.yaml")) if str(path.relative_to(ROOT)) not in named]
    assert {path.parent.name for path in missing} <= {"models"}, missing  # models stand for one another


def test_embedded_configs_load_their_checkpoints() -> None:
    for path in sorted(CONFIGS.glob("*.yaml")):
        model = parse(path).model
        model.configure_model()
        assert trainable(model.backbone) > 100_000, path


def test_the_oracle_is_a_diagnosis_on_top_of_grpo() -> None:
    shipped, diagnosed = parse("showo_grpo.yaml"), parse("showo_grpo.yaml", "diagnose/oracle.yaml")
    assert [reward.name for reward in shipped.model.rewards] == ["keyword"]
    assert [reward.name for reward in diagnosed.model.rewards] == ["oracle"]


def test_the_reward_hacking_run_has_its_reward_in_a_file_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--config", str(CONFIGS / "showo_grpo.yaml"), "--config", str(CONFIGS / "diagnose/reward_hacking.yaml")]
    small = ["--data.prompts_per_step", "1", "--data.steps_per_epoch", "1", "--data.num_val_prompts", "6"]
    small += ["--trainer.val_check_interval", "1", "--model.rollout.group_size", "2"]
    small += ["--model.evaluation.num_understanding", "6", "--model.evaluation.num_diversity_prompts", "0"]
    main(["fit", *files, *small, "--trainer.default_root_dir", str(tmp_path)])
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert [reward["class_path"] for reward in saved["model"]["rewards"]] == ["saturation"]
    assert saved["plugin_options"] == f"--plugin {CONFIGS / 'diagnose' / 'saturation.py'}"
    capsys.readouterr()


def test_true_labels_are_the_answers_of_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[list[str], list[str], torch.Tensor]] = []

    def record(self: SFT, backbone: Showo, rollout: Rollout, *args: Any) -> Any:
        labels = self.labeler.labels(backbone, rollout)
        trained.append((rollout.questions, labels.answers.text, backbone.decode(rollout.images)))
        return loss(self, backbone, rollout, *args)

    loss = SFT.loss
    monkeypatch.setattr(SFT, "loss", record)
    files = ["showo_understanding.yaml", "diagnose/true_labels.yaml"]
    options = [word for file in files for word in ("--config", str(CONFIGS / file))]
    options += ["--plugin", str(CONFIGS / "diagnose" / "true_labels.py"), "--data.prompts_per_step", "8"]
    options += ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0"]
    main(["fit", *options, "--trainer.default_root_dir", str(tmp_path)])
    ((questions, labels, pixels),) = trained
    assert labels == [answer(question, detect_scene(image)) for question, image in zip(questions, pixels, strict=True)]
    capsys.readouterr()
