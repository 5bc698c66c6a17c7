"""Mutated configs, given to `unirl doctor`: it prints lines and never a traceback, and what it accepts starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.mutations import mutated

from unirl.cli.main import main
from unirl.cli.parser import PluginParser
from unirl.doctor import models
from unirl.doctor.findings import Finding
from unirl.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS, STARTED, MEASURED = 60, 25, 10
"""How many mutated configs the doctor gets, of how many the accepted ones are started, and their memory is measured."""
FILES = [
    ["showo_sft.yaml"],
    ["showo_grpo.yaml"],
    ["janus_sft.yaml"],
    ["janus_grpo.yaml"],
    ["recipes/grpo.yaml", "models/janus_pro_7b.yaml"],
]
"""Configs that are merged; the last file of each is mutated."""
TEXTS = {
    "empty": b"",
    "a null": b"null\n",
    "a list": b"- model\n- data\n",
    "a number": b"5\n",
    "only a comment": b"# nothing\n",
    "a tab": b"model:\n\tseed: 1\n",
    "an open bracket": b"model:\n  rewards: [keyword\n",
    "an open quote": b'name: "abc\n',
    "two documents": b"name: a\n---\nname: b\n",
    "an unknown tag": b"name: !!python/object:os.system {}\n",
    "an unknown alias": b"name: *nobody\n",
    "a key that is a list": b"? [a, b]\n: 1\n",
    "a key that is null": b"~: 1\n",
    "bytes": bytes(range(256)),
    "zeros": bytes(100),
    "utf-16": "name: a\n".encode("utf-16"),
}
UNREADABLE = {
    "a number of 5000 digits": b"data: {seed: " + b"9" * 5000 + b"}\n",
    "brackets without end": b"name: " + b"[" * 3000,
}
"""Texts for which PyYAML raises other errors than its own."""


SMALL = ["--trainer.max_steps=1", "--data.prompts_per_step=1", "--model.rollout.group_size=2", "--trainer.devices=1"]
NO_VALIDATION = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--trainer.logger=false"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


class Doctor:
    """Runs `unirl doctor` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *files: Path | str) -> tuple[int, str]:
        """Exit code and output. Any other exception would be a traceback to the user."""
        code: Any = 0
        try:
            main(["doctor", *(word for file in files for word in ("--config", str(file)))])
        except SystemExit as error:
            code = error.code
        out, err = self.capsys.readouterr()
        assert code in (0, 2)
        assert "Traceback" not in out + err
        lines = [line for line in err.splitlines() if line.startswith("unirl: error: ")]
        assert len(lines) == (code == 2), err
        if lines and "see above" in lines[0]:
            assert [line for line in out.splitlines() if line.startswith("error")]
        return code, out + err


def fit(*files: Path | str) -> None:
    """Run one training step."""
    main(["fit", *(word for file in files for word in ("--config", str(file))), *SMALL, *NO_VALIDATION, *QUIET])


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """In an empty folder, without the hub, and without the search of all installed files, which takes the longest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unirl.cli.doctor.check_import_name", list)
    finding = Finding("error", "checkpoint", "tests do not use the hub")
    monkeypatch.setattr(models, "_check_hub", lambda subject, model: finding)
    return Doctor(capsys)


@pytest.mark.parametrize("index", range(len(FILES)), ids=[files[-1] for files in FILES])
def test_mutated_configs_are_reported_in_lines_and_accepted_ones_start(
    doctor: Doctor, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *below, name = [CONFIGS / file for file in FILES[index]]
    config = yaml.safe_load(name.read_text(encoding="utf-8"))
    for seed in range(index, SEEDS, len(FILES)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        text = yaml.safe_dump(mutated(config, seed), sort_keys=False)
        Path("mutated.yaml").write_text(text, encoding="utf-8")
        if seed >= MEASURED:
            monkeypatch.setattr("unirl.cli.doctor.check_resources", lambda *_: iter(()))
        try:
            code, _ = doctor(*below, "mutated.yaml")
            assert [path.name for path in Path().iterdir()] == ["mutated.yaml"]
            if code == 0 and seed < STARTED:
                fit(*below, "mutated.yaml")
        except BaseException as error:
            raise AssertionError(f"seed {seed}:\n{text}") from error


def test_seeds_give_different_mutations() -> None:
    config = yaml.safe_load((CONFIGS / FILES[0][0]).read_text(encoding="utf-8"))
    texts = {repr(mutated(config, seed)) for seed in range(SEEDS)}
    assert len(texts) > 0.9 * SEEDS
    assert repr(config) not in texts


def test_a_file_that_is_no_config_is_an_error_with_its_name(doctor: Doctor) -> None:
    for name, text in TEXTS.items():
        Path("broken.yaml").write_bytes(text)
        code, output = doctor(CONFIGS / "showo_sft.yaml", "broken.yaml")
        assert (code, "broken.yaml: " in output) == (2, True), name


def test_a_file_that_yaml_cannot_read_is_an_error_with_its_name(doctor: Doctor) -> None:
    for name, text in UNREADABLE.items():
        Path("broken.yaml").write_bytes(text)
        assert doctor(CONFIGS / "showo_sft.yaml", "broken.yaml")[0] == 2, name
        with pytest.raises(UserError, match=r"broken\.yaml: .*not valid YAML"):
            PluginParser().parse_path("broken.yaml")


def test_an_invalid_date_is_a_string(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unirl.cli.doctor.check_resources", lambda *_: iter(()))
    Path("odd.yaml").write_text("name: 2024-99-99\n")
    assert doctor(CONFIGS / "showo_sft.yaml", "odd.yaml")[0] == 0


LEAST = """
model:
  rewards: [{class_path: keyword, init_args: {weight: -1.0e+6}}]
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-12, betas: [0, 0], weight_decay: 0}}
  evaluation: {num_understanding: 0, num_diversity_prompts: 0}
  rollout:
    group_size: 2
    accept_threshold: -1.0e+9
    image_sampling: {temperature: 1.0e-4, guidance: -1, confidence_noise: 0, steps: 1}
    answer_sampling: {temperature: 1.0e-4, max_tokens: 1}
data: {prompts_per_step: 1, steps_per_epoch: 1, num_val_prompts: 0, val_batch_size: 1, seed: -1}
images: {count: 1, columns: 1}
"""
LARGEST = """
model:
  rewards: [{class_path: keyword, init_args: {weight: 1.0e+6}}]
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 10, betas: [0.999999, 0.999999], weight_decay: 100}}
  lr_scheduler: {class_path: unirl.training.WarmupSchedule, init_args: {warmup_steps: 1000000000}}
  seed: 100000000000000000000
  rollout:
    group_size: 2
    accept_threshold: 1.0e+9
    image_sampling: {temperature: 1.0e+4, guidance: 1000, confidence_noise: 1.0e+30, steps: 40}
    answer_sampling: {temperature: 1.0e+4, max_tokens: 40}
data: {prompts_per_step: 1, steps_per_epoch: 1000000000, num_val_prompts: 1, val_batch_size: 100000}
guards: {zero_variance_patience: 1000000000, max_accuracy_drop: 1}
"""
RULES = {
    "grpo, least": {
        "class_path": "grpo",
        "init_args": {
            "loss": {"std_epsilon": 0, "epsilon": 0, "epsilon_high": 0, "negative_scale": 0},
            "scoring": {"scored_steps": 1},
        },
    },
    "grpo, largest": {
        "class_path": "grpo",
        "init_args": {
            "loss": {"std_epsilon": 1e6, "epsilon": 1e6, "negative_scale": 1e6},
            "kl": {"beta": 1e6},
        },
    },
    "sft, least": {
        "class_path": "sft",
        "init_args": {"end_to_end": True, "temperature": 1e-4, "straight_through_steps": 1},
    },
    "sft, largest": {
        "class_path": "sft",
        "init_args": {"end_to_end": True, "temperature": 1e4, "straight_through_steps": 1000, "num_masks": 3},
    },
}


@pytest.mark.parametrize(("rule", "config"), zip(RULES, ["showo", "janus", "janus", "showo"], strict=True))
def test_configs_at_the_ends_of_all_ranges_start(doctor: Doctor, config: str, rule: str) -> None:
    Path("ends.yaml").write_text(LEAST if "least" in rule else LARGEST, encoding="utf-8")
    Path("rule.yaml").write_text(yaml.safe_dump({"model": {"update": RULES[rule]}}), encoding="utf-8")
    files = [CONFIGS / f"{config}_sft.yaml", "ends.yaml", "rule.yaml"]
    code, output = doctor(*files)
    assert code == 0, output
    fit(*files)
