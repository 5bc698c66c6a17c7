"""One vocabulary: words that were replaced do not come back."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
RETIRED = {
    "image": r"pictures?|drawings?",
    "to generate": r"painted|paints?",
    "generation, understanding, self-reward": r"seeing|critic",
    "trained, learned": r"learnt",
    "num_iterations": r"updates_per_rollout",
    "num_understanding, num_val_prompts, val_batch_size": r"exam_size|validation_batch",
    "image_sampling": r"validation_sampling",
    "accept_threshold": r"model\.accept",
    "weight_by_failure_rate, num_masks, loss_guidance": r"hard_first|score_guidance",
    "zero_variance_patience, max_logprob_gap": r"flat_rollouts|scoring_gap|flat_groups",
    "answer_labels: prompt, self": r"answers: (all|accepted|self)|answers=\"(all|accepted|self)\"",
    "gather_object, zero_loss": r"of_all|is_loss",
    "AutoregressiveImages": r"CodeByCode",
    "image_log_likelihood": r"picture_log_probs",
    "supports_straight_through, supports_greedy_images, understands_pixels": r"can_relax|draws_greedily|sees_pixels",
}
"""Patterns by the word that stands in their place."""
DATA = re.compile(r"in the picture|\"pictures?\"|`drawing` is generation, `seeing` understanding, `critic`")
"""Questions that the shipped models were trained on, keys of their logs and of golden data."""
ENGLISH = ("src/unirl/rewards/attribute/", "tests/rewards/test_attribute")
"""Files with free-form English answers."""
SUFFIXES = {".py", ".md", ".yaml", ".template", ".toml", ".ipynb"}


def test_retired_words_do_not_come_back() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    files = [ROOT / name for name in listed] or [p for p in ROOT.rglob("*") if ".venv" not in p.parts]
    problems = []
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix not in SUFFIXES or name.startswith(ENGLISH) or path == Path(__file__) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            text = DATA.sub("", line)
            for instead, pattern in RETIRED.items():
                if found := re.search(rf"\b({pattern})\b", text, re.IGNORECASE):
                    problems.append(f"{name}:{number}: {found[0]!r}, say {instead}")
    assert not problems, "\n".join(problems)
