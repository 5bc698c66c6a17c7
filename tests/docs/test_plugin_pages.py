"""The examples of docs/plugins are run as they are."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from unirl.backbones import Backbone
from unirl.cli.main import main
from unirl.rewards.scoring import score
from unirl.types import Answers, AnswerSampling, Example, Images, ImageSampling, Rollout
from unirl.updates import GRPO, SFT, KLPenalty, UpdateRule

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
QUICK = ["--data.num_val_prompts", "6", "--data.prompts_per_step", "2", "--model.evaluation.num_understanding", "6"]
QUICK += ["--model.evaluation.num_diversity_prompts", "0", "--trainer.limit_val_batches", "0"]
QUICK += ["--trainer.num_sanity_val_steps", "0", "--trainer.max_steps", "1"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, from which the files of a page are imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("brief", "table", "unirl_brief"):
            del sys.modules[name]


def run_command(command: str, folder: Path) -> None:
    """Run a command of a page."""
    _, *argv = command.split()
    argv = [str(ROOT / word) if word.startswith("configs/") else word for word in argv]
    main([*argv, *QUICK, "--trainer.default_root_dir", str(folder)])


def registered(module: str, hook: str) -> dict[str, str]:
    names: dict[str, str] = {}
    getattr(import_module(module), hook)(register=names.__setitem__)
    return names


def answers(*texts: str) -> Answers:
    ids = torch.zeros(len(texts), 1, dtype=torch.long)
    return Answers(ids, torch.ones_like(ids, dtype=torch.bool), texts)


def test_the_first_reward_has_fifteen_lines_scores_and_trains(folder: Path) -> None:
    code = blocks("first-reward.md", "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (folder / "brief.py").write_text(code)
    assert registered("brief", "unirl_register_rewards") == {"brief": "brief:Brief"}
    reward = import_module("brief").Brief()
    images, examples = Images(torch.zeros(2, 1, dtype=torch.long)), [Example("a", "b", "c", "d")] * 2
    scores, parts, _ = score([reward], examples, images, answers("yes", "two red circles here"), None)
    assert scores.tolist() == [1.0, 0.25]
    assert list(parts) == ["brief"]
    (command,) = blocks("first-reward.md", "bash")
    run_command(command, folder)
    saved = yaml.safe_load(next(folder.rglob("config.yaml")).read_text())
    assert saved["model"]["rewards"][0]["class_path"] == "brief"


def test_the_first_reward_as_a_package_is_shown_as_on_the_page(folder: Path) -> None:
    _, rewards, plugin = blocks("first-reward.md", "python")
    package, info = folder / "unirl_brief", folder / "unirl_brief-0.1.0.dist-info"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rewards.py").write_text(rewards)
    (package / "plugin.py").write_text(plugin)
    (toml,) = blocks("first-reward.md", "toml")
    entry = re.search(r"\[project\.entry-points\.unirl\]\n(.*)\n", toml)
    assert entry
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unirl-brief\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[unirl]\n{entry[1].replace(chr(34), '')}\n")
    reward = import_module("unirl_brief.rewards").Brief(words=1, weight=0.5)
    scored = reward.score([], Images(torch.zeros(2, 1)), answers("yes", "red and blue"))
    assert scored.tolist() == pytest.approx([1, 1 / 3])
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    code += "from unirl.cli.main import main; main(['plugins', 'show', 'brief'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Options" in done.stdout
    assert blocks("first-reward.md", "yaml")[0] in done.stdout


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    (folder / "table.py").write_text(blocks("first-backbone.md", "python")[0])
    made = import_module("table").Table()
    made.build()
    return made


def rollout(backbone: Backbone, sampling: ImageSampling) -> Rollout:
    examples = [Example(f"a photo of {what}", f"is it {what} ?", "yes", "x") for what in "ab" for _ in range(2)]
    generator = torch.Generator().manual_seed(1)
    images = backbone.sample_images([e.prompt for e in examples], sampling, generator)
    answers = backbone.sample_answers(images, [e.question for e in examples], AnswerSampling(8, 1.0), generator)
    scores = torch.tensor([0.0, 1.0, 1.0, 0.0])
    return Rollout(examples, images, answers, scores, {}, scores > 0, group_size=2)


@pytest.mark.parametrize("rule", [SFT(), GRPO(kl=KLPenalty(beta=0.1))], ids=["sft", "grpo"])
def test_the_first_backbone_takes_a_training_step(rule: UpdateRule, backbone: Backbone) -> None:
    sampling = ImageSampling(temperature=0.8)
    sampled = rollout(backbone, sampling)
    rule.attach(backbone)
    rewarded = torch.tensor([1, 2])
    before = backbone.image_log_probs(sampled.prompts, sampled.images, sampling)[0].sum(1)
    loss, _ = rule.loss(backbone, sampled, sampling, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())
    torch.optim.SGD(backbone.parameters(), 1.0).step()
    after = backbone.image_log_probs(sampled.prompts, sampled.images, sampling)[0].sum(1)
    assert (after > before)[rewarded].all()


def test_the_first_backbone_samples_scores_and_saves(backbone: Backbone, tmp_path: Path) -> None:
    sampling = ImageSampling(temperature=0.8)
    sampled, repeated = rollout(backbone, sampling), rollout(backbone, sampling)
    assert torch.equal(sampled.images.codes, repeated.images.codes)
    assert sampled.answers.text == repeated.answers.text
    scored, mask = backbone.image_log_probs(sampled.prompts, sampled.images, sampling)
    torch.testing.assert_close(scored.detach(), sampled.images.log_probs)
    assert mask.all()
    answer_log_probs = backbone.answer_log_probs(sampled.images, sampled.questions, sampled.answers)
    torch.testing.assert_close(answer_log_probs.detach(), sampled.answers.log_probs)
    pixels = backbone.decode(sampled.images)
    assert pixels.shape == (4, 3, 64, 64)
    assert torch.equal(backbone.encode(pixels).codes, sampled.images.codes)
    tokens = backbone.tokenize_answers(["two", "a"])
    assert tokens.mask.sum(1).tolist() == [4, 2]
    backbone.save_pretrained(tmp_path / "saved")
    loaded = type(backbone).from_pretrained(str(tmp_path / "saved"))
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), loaded.parameters(), strict=True))


def test_the_first_backbone_trains_with_the_command_of_its_page(backbone: Backbone, folder: Path) -> None:
    assert registered("table", "unirl_register_backbones") == {"table": "table:Table"}
    (config,), (command,) = blocks("first-backbone.md", "yaml"), blocks("first-backbone.md", "bash")
    (folder / "table.yaml").write_text(config)
    command = command.replace("table.yaml", str(folder / "table.yaml"))
    run_command(command, folder)
    (saved,) = folder.rglob("pretrained")
    trained = type(backbone).from_pretrained(str(saved))
    assert not torch.equal(trained.tiles, backbone.tiles)


def test_the_backbone_page_names_every_method_of_the_contract() -> None:
    page = (PAGES / "first-backbone.md").read_text()
    table = page[: page.index("## A complete example")]
    own = {name for name in vars(Backbone) if not name.startswith("_") and name != "supports_straight_through"}
    assert {name for name in own if f"`{name}" not in table and f", `{name}" not in table} == set()


def test_links_between_the_pages_exist() -> None:
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([\w./-]+)", page.read_text()):
            assert (PAGES / target).exists(), f"{page.name} links to {target}"
