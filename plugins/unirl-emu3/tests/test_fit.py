"""Short runs in the shapes world: every rule trains it, by the package's own configs and the command line."""

from pathlib import Path

import pytest
import torch

from unirl.cli.main import main
from unirl_emu3.backbone import Emu3
from unirl_emu3.tiny import save

CONFIGS = Path(__file__).parents[1] / "configs"
SHORT = {
    "trainer": {"max_steps": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0, "enable_progress_bar": "false"},
    "model.rollout": {"group_size": 2, "accept_threshold": 0.0},
    "model.evaluation": {"num_understanding": 0, "num_diversity_prompts": 0},
    "data": {"prompts_per_step": 1, "num_val_prompts": 4, "val_batch_size": 4},
}
RULES = {
    "grpo": ["--model.update.init_args.kl.beta", "0.1"],
    "sft": ["--model.update", "sft"],
    "end-to-end": ["--model.update", "sft", "--model.update.init_args.end_to_end", "true"],
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_trains_it(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = Emu3.from_pretrained(str(save(tmp_path / "tiny-emu3")), image_area=64 * 64)
    short = [f"--{part}.{name}={value}" for part, options in SHORT.items() for name, value in options.items()]
    main(["fit", "--config", str(CONFIGS / "emu3_tiny.yaml"), *short, *RULES[rule]])
    (folder,) = tmp_path.glob("runs/*/version_0/pretrained")
    after = dict(Emu3.from_pretrained(str(folder)).named_parameters())
    trained = {name for name, value in before.named_parameters() if not torch.equal(value, after[name])}
    assert any("text_model.layers.0.self_attn" in name for name in trained)
    assert not any("vqmodel" in name for name in trained)
