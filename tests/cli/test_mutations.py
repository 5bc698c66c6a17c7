"""Spoiled configs, thrown at `unirl doctor`: lines that say what is wrong, never a traceback; and what it lets pass."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.mutations import spoiled

from unirl.cli.main import main
from unirl.cli.parser import PluginParser
from unirl.doctor import checkpoint
from unirl.doctor.findings import Finding
from unirl.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS, STARTED = 60, 25
"""How many are shown to the doctor, and of how many those that it lets pass are started."""
FILES = ["showo_sft.yaml", "showo_grpo.yaml", "janus_sft.yaml", "janus_grpo.yaml", "scale/janus_pro_7b.yaml"]
"""The last one is an overlay on the one before it."""
TEXTS = {
    "empty": b"",
    "a null": b"null\n",
    "a list": b"- model\n- data\n",
    "a number": b"5\n",
    "only a comment": b"# nothing\n",
    "a tab": b"model:\n\tlr: 1\n",
    "an open bracket": b"model:\n  betas: [0.9\n",
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
SMALL = ["--trainer.max_steps=1", "--data.prompts_per_step=1", "--model.group_size=2", "--trainer.devices=1"]
BLIND = ["--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--trainer.logger=false"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
UNREADABLE = {
    "a number of 5000 digits": b"data: {seed: " + b"9" * 5000 + b"}\n",
    "brackets without end": b"name: " + b"[" * 3000,
}
"""Texts at which yaml raises something else than its own errors."""


class Doctor:
    """Runs the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *files: Path | str) -> tuple[int, str]:
        """Exit code and what was printed; whatever else it raises is a traceback to the user."""
        code: Any = 0
        try:
            main(["doctor", *(word for file in files for word in ("--config", str(file)))])
        except SystemExit as stopped:
            code = stopped.code
        out, err = self.capsys.readouterr()
        assert code in (0, 2)
        assert "Traceback" not in out + err
        lines = [line for line in err.splitlines() if line.startswith("unirl: error: ")]
        assert len(lines) == (code == 2), err
        if lines and "see above" in lines[0]:
            assert [line for line in out.splitlines() if line.startswith("error")]
        return code, out + err


def fit(*files: Path | str) -> None:
    """A step of a run, which starts, or raises."""
    main(["fit", *(word for file in files for word in ("--config", str(file))), *SMALL, *BLIND, *QUIET])


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """In an empty folder, without the hub."""
    monkeypatch.chdir(tmp_path)
    gone = Finding("error", "checkpoint", "the hub is not asked here")
    monkeypatch.setattr(checkpoint, "_on_hub", lambda name: gone)
    return Doctor(capsys)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_spoiled_config_is_told_of_in_lines(doctor: Doctor, seed: int) -> None:
    which = seed % len(FILES)
    config = spoiled(yaml.safe_load((CONFIGS / FILES[which]).read_text(encoding="utf-8")), seed)
    Path("spoiled.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    below = [CONFIGS / FILES[which - 1]] if FILES[which].startswith("scale/") else []
    code, _ = doctor(*below, "spoiled.yaml")
    assert [path.name for path in Path().iterdir()] == ["spoiled.yaml"]
    if code == 0 and seed < STARTED:
        fit(*below, "spoiled.yaml")


def test_seeds_spoil_in_different_ways() -> None:
    config = yaml.safe_load((CONFIGS / FILES[0]).read_text(encoding="utf-8"))
    assert len({repr(spoiled(config, seed)) for seed in range(SEEDS)}) > 0.9 * SEEDS
    assert repr(config) not in {repr(spoiled(config, seed)) for seed in range(SEEDS)}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_file_that_is_no_config_is_refused_by_its_name(doctor: Doctor, text: bytes) -> None:
    Path("broken.yaml").write_bytes(text)
    code, said = doctor(CONFIGS / FILES[0], "broken.yaml")
    assert code == 2
    assert "broken.yaml: " in said


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_at_which_yaml_stumbles_is_refused_by_its_name(doctor: Doctor, text: bytes) -> None:
    Path("broken.yaml").write_bytes(text)
    assert doctor(CONFIGS / FILES[0], "broken.yaml")[0] == 2


def test_a_date_that_is_none_is_a_name(doctor: Doctor) -> None:
    Path("odd.yaml").write_text("name: 2024-99-99\n")
    assert doctor(CONFIGS / FILES[0], "odd.yaml")[0] == 0


@pytest.mark.parametrize("text", UNREADABLE)
def test_the_parser_itself_says_where_yaml_stumbles(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(UNREADABLE[text])
    with pytest.raises(UserError, match=r"broken\.yaml: .*not valid YAML"):
        PluginParser().parse_path(path)


LOW = """
model: {lr: 1.0e-12, betas: [0, 0], weight_decay: 0, group_size: 2, accept: -1.0e+9, num_understanding: 0, diversity_prompts: 0,
  sampling: {temperature: 1.0e-4, guidance: -1, confidence_noise: 0, steps: 1},
  answering: {temperature: 1.0e-4, max_tokens: 1}, rewards: [{class_path: keyword, init_args: {weight: -1.0e+6}}]}
data: {prompts_per_step: 1, steps_per_epoch: 1, held_out: 0, val_batch_size: 1, seed: -1}
pictures: {count: 1, columns: 1}
"""
HIGH = """
model: {lr: 10, betas: [0.999999, 0.999999], weight_decay: 100, warmup_steps: 1000000000, group_size: 2, accept: 1.0e+9,
  seed: 100000000000000000000, sampling: {temperature: 1.0e+4, guidance: 1000, confidence_noise: 1.0e+30, steps: 40},
  answering: {temperature: 1.0e+4, max_tokens: 40}, rewards: [{class_path: keyword, init_args: {weight: 1.0e+6}}]}
data: {prompts_per_step: 1, steps_per_epoch: 1000000000, held_out: 1, val_batch_size: 100000}
guards: {zero_variance_patience: 1000000000, fall: 1}
"""
RULES = {
    "grpo, low": "{class_path: grpo, init_args: {epsilon: 0, clip_low: 0, clip_high: 0, negative: 0, scored_steps: 1}}",
    "grpo, high": "{class_path: grpo, init_args: {epsilon: 1.0e+6, clip_low: 1.0e+6, beta: 1.0e+6, negative: 1.0e+6}}",
    "sft, low": "{class_path: sft, init_args: {end_to_end: true, temperature: 1.0e-4, straight_through_steps: 1}}",
    "sft, high": "{class_path: sft, init_args: {end_to_end: true, temperature: 1.0e+4, straight_through_steps: 1000, num_masks: 3}}",
}


@pytest.mark.parametrize(("rule", "config"), zip(RULES, ["showo", "janus", "janus", "showo"], strict=True))
def test_what_the_doctor_lets_pass_at_the_ends_of_all_ranges_does_start(doctor: Doctor, config: str, rule: str) -> None:
    Path("ends.yaml").write_text(LOW if "low" in rule else HIGH, encoding="utf-8")
    update = {"model": {"update": yaml.safe_load(RULES[rule])}}
    Path("rule.yaml").write_text(yaml.safe_dump(update), encoding="utf-8")
    files = [CONFIGS / f"{config}_sft.yaml", "ends.yaml", "rule.yaml"]
    code, said = doctor(*files)
    assert code == 0, said
    fit(*files)
