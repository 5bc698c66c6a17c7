"""Runs with each reward by its registered name, in the shapes world, and the shipped config."""

from pathlib import Path

import pytest

from unirl import PromptsDataModule, SelfImprovement
from unirl.cli.main import main
from unirl.cli.train import Run

OVERLAY = Path(__file__).parents[1] / "configs" / "pickscore.yaml"
SHIPPED = Path(__file__).parents[3] / "configs" / "showo_grpo.yaml"
BASE = """
model:
  backbone: {class_path: showo, init_args: {checkpoint: "unirl_shapes:checkpoints/showo"}}
  update: grpo
  rewards: [{class_path: keyword}]
  rollout: {group_size: 2, image_sampling: {steps: 4}, answer_sampling: {max_tokens: 6}}
  evaluation: {num_understanding: 0, num_diversity_prompts: 0}
data: {prompts: shapes, prompts_per_step: 2, steps_per_epoch: 1, num_val_prompts: 6}
trainer: {accelerator: cpu, max_steps: 1, limit_val_batches: 0, num_sanity_val_steps: 0, enable_progress_bar: false}
"""


class Parsed(Run):
    """Parses and builds everything without running it."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path / "base.yaml"


def rewards(base: Path, *arguments: str) -> list[dict[str, object]]:
    model = Parsed(SelfImprovement, PromptsDataModule, ["fit", "--config", str(base), *arguments]).model
    return [{"name": r.name, "weight": r.weight, "model": getattr(r, "model", "")} for r in model.rewards]


def test_the_shipped_config_adds_pickscore_to_keyword() -> None:
    assert rewards(SHIPPED, "--config", str(OVERLAY), "--trainer.logger", "false") == [
        {"name": "keyword", "weight": 1.0, "model": ""},
        {"name": "pickscore", "weight": 0.5, "model": "yuvalkirstain/PickScore_v1"},
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pickscore", "low: -15.0, high: 15.0"),
        ("hpsv2", "low: -1.0, high: 1.0, accept_threshold: 0.6"),
        ("vlm_judge", "question: 'does this image show {prompt} ? answer yes or no .'"),
    ],
)
def test_a_training_step(name: str, options: str, base: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("vlm_folder" if name == "vlm_judge" else "clip_folder")
    Path("over.yaml").write_text(
        f"name: {name}\nmodel: {{rewards: [{{class_path: {name}, init_args: {{model: {folder}, {options}}}}}]}}\n"
    )
    main(["fit", "--config", str(base), "--config", "over.yaml"])
    assert list(Path("runs", name).glob("version_0/pretrained/*"))
