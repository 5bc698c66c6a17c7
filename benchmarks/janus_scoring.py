"""Scoring of given codes, forward and backward, each way in processes of its own: a process's peak never goes down."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from forked import peak_resident_memory
from janus_sizes import SAMPLING, Case, make
from measure import RETURNING, Spread
from sizes import SEED
from torch import Tensor

from unirl.types import Images

WAYS = ("transformers", "unirl")


@dataclass(frozen=True)
class Scoring:
    """One way's figures of a group.

    Args:
        memory: Bytes by which the pass raises the peak of a process that holds weights and gradients.
        seconds: Of forward and backward.
        log_prob: Mean of the scores: shows that both ways compute the same.
        norm: Of the gradient: shows that both ways learn the same.
    """

    memory: Spread
    seconds: Spread
    log_prob: float
    norm: float


def measure(size: str, codes: int | None, group: int, repeats: int, threads: int) -> dict[str, Scoring]:
    """Both ways alternately, each in a process of its own. A way that the free memory is too small for is left out."""
    given = [str(argument) for argument in (size, codes or 0, group, threads)]
    runs: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            command = [sys.executable, __file__, way, *given]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | RETURNING)
            if done.returncode == 0:
                runs[way].append([float(figure) for figure in done.stdout.split()])
            elif "allocate memory" not in done.stderr:
                raise RuntimeError(done.stderr)
    return {way: summary(rows) for way, rows in runs.items() if rows}


def summary(rows: list[list[float]]) -> Scoring:
    memory, seconds, log_probs, norms = zip(*rows, strict=True)
    return Scoring(Spread.of(list(memory)), Spread.of(list(seconds)), log_probs[0], norms[0])


def score(way: str, case: Case, group: int) -> tuple[float, float, float, float]:
    """Bytes, seconds, mean log-probability and norm of the gradient of one pass."""
    weights = [p for p in case.backbone.parameters() if p.requires_grad]
    for weight in weights:  # training holds gradients, so they exist before the measurement
        weight.grad = torch.zeros_like(weight).fill_(0)
    entries, length = case.model.config.vq_config.num_embeddings, case.backbone.num_image_codes
    codes = torch.randint(entries, (group, length), generator=torch.Generator().manual_seed(SEED))
    before, start = peak_resident_memory(), time.perf_counter()
    log_probs = (plain if way == "transformers" else own)(case, codes)
    log_probs.mean().backward()
    seconds, memory = time.perf_counter() - start, peak_resident_memory() - before
    norm = torch.stack([weight.grad.norm() for weight in weights if weight.grad is not None]).norm()
    return memory, seconds, log_probs.mean().item(), norm.item()


def own(case: Case, codes: Tensor) -> Tensor:
    return case.backbone.image_log_probs([case.prompt] * len(codes), Images(codes), SAMPLING)[0]


def plain(case: Case, codes: Tensor) -> Tensor:
    """transformers' `forward` over prompt and codes, with and without the prompt; what is needed is sliced from it."""
    backbone, model, group = case.backbone, case.model, len(codes)
    (prompt,) = backbone.prompt_ids([case.prompt])
    rows = ([*ids, backbone.image_start_id] for ids in (prompt, backbone.unconditional_ids(prompt)))
    ids = torch.tensor([row for row in rows for _ in range(group)])
    before = model.prepare_embeddings_for_image_generation(codes[:, :-1]).repeat(2, 1, 1)
    embeds = torch.cat((model.get_input_embeddings()(ids), before), 1)
    hidden = model(inputs_embeds=embeds, use_cache=False, output_hidden_states=True).hidden_states[-1]
    cond, uncond = model.model.generation_head(hidden[:, len(prompt) :]).chunk(2)
    logits = uncond + (1 + SAMPLING.guidance) * (cond - uncond)
    return logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]


def stay_within_free_memory() -> None:
    """Fail instead of making the machine swap, or the system kill another process."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        available = meminfo.read_text(encoding="utf-8").partition("MemAvailable:")[2].split()[0]
        resource.setrlimit(resource.RLIMIT_DATA, (int(int(available) * 1024 * 0.95),) * 2)


if __name__ == "__main__":
    _, chosen, size, codes, group, threads = sys.argv
    torch.set_num_threads(int(threads))
    stay_within_free_memory()
    print(*score(chosen, make(size, int(codes) or None), int(group)))
