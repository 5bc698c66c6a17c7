"""The callback that writes the page of a run: before and after, curves, images over time, config, warnings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image
from torch import Tensor
from typing_extensions import override

from unirl.callbacks.changes import COLUMN_NAMES, ChangeTable, change_of, fit_table
from unirl.callbacks.guards import Guards
from unirl.callbacks.history import History
from unirl.callbacks.progress import total_steps
from unirl.callbacks.results import EXPLANATIONS, is_partial_sanity_check, metrics_of, run_dir
from unirl.errors import check_minimum
from unirl.report import page
from unirl.report.curves import charts, plotly_js
from unirl.report.thumbnails import data_uri, spread, thumbnail
from unirl.types import Example, Rollout

CONFIG = "config.yaml"
MAX_VALIDATIONS = 12
"""Validations whose images are kept."""
RIGHT, WRONG, UNJUDGED = "right", "wrong", "not judged"


class Report(Callback):
    """Writes `report.html` in the folder of a run, after each validation, at the end, and when the run is stopped.

    It is one file, which needs neither network nor server: the metrics before and after, curves of all logged scalars,
    images of the same held-out prompts over time with the answers about them, the judge's verdicts and their reasons,
    what the guards reported, the config, and versions. Checkpoints hold what it shows, so that the page of a resumed
    fit shows the whole fit.

    Args:
        count: Held-out prompts whose images are shown, as many of each category as there are. With several processes,
            they are taken from those of the first one.
        enabled: Whether there is a page.

    Raises:
        UserError: `count` is below 0.
    """

    def __init__(self, count: int = 24, enabled: bool = True) -> None:
        check_minimum(0, "Report", count=count)
        self.count, self.enabled = count, enabled
        self._folder: Path | None = None
        self._reset()

    def _reset(self) -> None:
        self._history, self._step = History(), 0
        self._validations: list[dict[str, Any]] = []  # step and images
        self._num_validations = 0
        self._first: dict[str, Any] | None = None  # step and metrics
        self._last: dict[str, Any] | None = None
        self._warnings: list[tuple[int, str]] = []
        self._chosen: set[int] = set()
        self._images: list[dict[str, Any]] = []
        self._num_seen = 0

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset()  # what a resumed fit has is loaded after this

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._folder = run_dir(trainer)  # collective

    # --- training ---

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step, every = trainer.global_step, int(getattr(trainer, "log_every_n_steps", 1))
        if not self._records(trainer) or step == self._step:
            return
        self._step = step
        self._record_warnings(trainer)
        if every and step % every == 0:
            logged = trainer.logged_metrics
            self._history.add(step, {name: value for name, value in logged.items() if not name.startswith("val/")})

    def _records(self, trainer: Trainer) -> bool:
        return self.enabled and trainer.is_global_zero and trainer.state.fn == "fit"

    def _record_warnings(self, trainer: Trainer) -> None:
        guards = [one for one in trainer.callbacks if isinstance(one, Guards)]  # type: ignore[attr-defined]
        found = [warning for one in guards for warning in one.warnings]
        self._warnings += [(trainer.global_step, warning) for warning in found[len(self._warnings) :]]

    # --- validation ---

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images, self._num_seen = [], 0
        if self._records(trainer):
            self._chosen = set(self._choose(trainer))

    def _choose(self, trainer: Trainer) -> list[int]:
        """Which of the held-out examples of this process are shown."""
        data: Any = getattr(trainer, "datamodule", None)
        examples: Sequence[Example] = getattr(data, "val_examples", ())
        own = examples[trainer.global_rank :: trainer.world_size]
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        limit = sum(batches) * getattr(data, "val_batch_size", 0)
        own = own[: len(own) if math.isinf(limit) else int(limit)]
        first = {example.prompt: i for i, example in reversed(list(enumerate(own)))}  # a prompt may come again
        rows = sorted(first.values())
        return [rows[i] for i in spread([own[row].category for row in rows], self.count)]

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        rollout: Rollout | None = (outputs or {}).get("rollout")
        if not self._records(trainer) or is_partial_sanity_check(trainer) or rollout is None:
            return
        first, self._num_seen = self._num_seen, self._num_seen + len(rollout.examples)
        rows = [row for row in range(len(rollout.examples)) if first + row in self._chosen]
        if rows and rollout.images.pixels is not None:
            self._images += _images_of(rollout, outputs.get("verdicts") or [], rows)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._records(trainer) or is_partial_sanity_check(trainer):
            return
        self._record_validation(trainer.global_step, metrics_of(pl_module))
        self._record_warnings(trainer)
        self._write(trainer)

    def _record_validation(self, step: int, metrics: dict[str, dict[str, float]]) -> None:
        if self._last is not None and self._last["step"] == step:
            return  # a resumed fit repeats the validation of its checkpoint
        values = {f"val/{kind}/{name}": value for kind, part in metrics.items() for name, value in part.items()}
        self._history.add(step, values)
        self._last = {"step": step, "metrics": metrics}
        self._first = self._first or self._last
        self._num_validations += 1
        if self._images:
            self._validations = _thinned([*self._validations, {"step": step, "images": self._images}])

    # --- the page ---

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # also after Ctrl-C: the step is done and saved
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        folder = self._folder
        if not self._records(trainer) or folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            page.write(folder, self._page(folder, trainer.global_step, total_steps(trainer)))
        except OSError as error:
            rank_zero_warn(f"{page.REPORT} was not written: {error.strerror} ({folder})")

    def _page(self, folder: Path, step: int, total: int | None) -> str:
        config = folder / CONFIG
        table = None if self._first is None or self._last is None else fit_table(self._first, self._last, step)
        curves, images = self._history.curves(), _by_prompt(self._validations)
        steps = [str(one["step"]) for one in self._validations]
        values = {
            "results": table,
            "charts": charts(curves),
            "images": images,
            "config": config.read_text(encoding="utf-8") if config.is_file() else "",
            "versions": list((page.versions() | {"device": _device()}).items()),
        }
        names = {"results": "Results", "charts": "Curves", "images": "Images", "config": "Config"}
        anchors = {"charts": "curves"}
        return page.render(
            "run.html",
            title=f"Run {folder.parent.name}/{folder.name}",
            sections={anchors.get(key, key): name for key, name in names.items() if values[key]}
            | {"versions": "Versions"},
            summary=self._summary(step, total, curves.get("reward")),
            warnings=self._warnings,
            explanations=_explanations(table),
            left_out=self._num_validations - len(self._validations) if images else 0,
            filters={
                "category": list(dict.fromkeys(one["category"] for one in images)),
                "verdict": list(dict.fromkeys(one["verdict"] for group in images for one in group["images"])),
                "step": steps,
            },
            plotly_js=plotly_js,
            **values,
        )

    def _summary(
        self, step: int, total: int | None, rewards: tuple[list[float], list[float]] | None
    ) -> list[tuple[str, str]]:
        cells = [("steps", str(step) if total is None or step >= total else f"{step} of {total}")]
        for task in ("generation", "understanding"):
            before, after = (_overall(one, task) for one in (self._first, self._last))
            if after is not None:
                cells.append((f"{task}, %", change_of(before if self._num_validations > 1 else None, after).text))
        return [*cells, ("last reward", f"{rewards[1][-1]:.2f}")] if rewards else cells

    # --- checkpoints ---

    @override
    def state_dict(self) -> dict[str, Any]:
        if not self.enabled:
            return {}
        return {
            "history": self._history.state_dict(),
            "validations": self._validations,
            "num_validations": self._num_validations,
            "first": self._first,
            "last": self._last,
            "warnings": self._warnings,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        self._history.load_state_dict(state_dict["history"])
        self._validations, self._num_validations = list(state_dict["validations"]), state_dict["num_validations"]
        self._first, self._last = state_dict["first"], state_dict["last"]
        self._warnings = [(step, warning) for step, warning in state_dict["warnings"]]


def _images_of(rollout: Rollout, verdicts: Sequence[Any], rows: Sequence[int]) -> list[dict[str, Any]]:
    """What the page shows of some samples, as plain values that checkpoints can hold."""
    assert rollout.images.pixels is not None
    pixels, accepted = rollout.images.pixels[list(rows)].cpu(), rollout.accepted.tolist()
    parts = {name: part.tolist() for name, part in rollout.score_parts.items() if name != "judge"}
    texts, images = rollout.first_answers.text, list[dict[str, Any]]()
    for row, image in zip(rows, pixels, strict=True):
        example, verdict = rollout.examples[row], verdicts[row] if verdicts else None
        scores = {f"reward {name}": values[row] for name, values in parts.items()}
        images.append(
            {
                "prompt": example.prompt,
                "category": example.category,
                "question": example.question,
                "expected": example.answer,
                "answer": texts[row],
                "accepted": accepted[row],
                "correct": None if verdict is None else verdict.correct,
                "reason": "" if verdict is None else verdict.reason,
                "scores": scores if verdict is None else scores | {n: float(v) for n, v in verdict.scores.items()},
                "file": torch.frombuffer(bytearray(thumbnail(_image(image))), dtype=torch.uint8),
            }
        )
    return images


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _thinned(validations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MAX_VALIDATIONS`: without the one whose neighbors are closest together."""
    if len(validations) <= MAX_VALIDATIONS:
        return validations
    gaps = [validations[i + 1]["step"] - validations[i - 1]["step"] for i in range(1, len(validations) - 1)]
    closest = 1 + gaps.index(min(gaps))
    return [*validations[:closest], *validations[closest + 1 :]]


def _by_prompt(validations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The images of each prompt over time."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for validation in validations:
        for image in validation["images"]:
            about = {name: image[name] for name in ("prompt", "category", "question", "expected")}
            group = groups.setdefault(tuple(about.values()), {**about, "images": []})
            verdict = UNJUDGED if image["correct"] is None else RIGHT if image["correct"] else WRONG
            scores = [(name, f"{value:.3g}") for name, value in image["scores"].items()]
            source = data_uri(_bytes(image["file"]))
            shown = {"step": validation["step"], "verdict": verdict, "source": source, "scores": scores}
            group["images"].append({**image, **shown})
    return list(groups.values())


def _bytes(file: Tensor) -> bytes:
    return bytes(file.tolist())


def _explanations(table: ChangeTable | None) -> list[tuple[str, str]]:
    """What the metrics of a table are."""
    shown = [] if table is None else [*table.columns, *(name for name, _ in table.others)]
    names = {COLUMN_NAMES.get(name, name): text for name, text in EXPLANATIONS.items()}
    return [(name, names[name]) for name in shown if name in names]


def _overall(validation: Mapping[str, Any] | None, task: str) -> float | None:
    value: float | None = ((validation or {}).get("metrics") or {}).get(task, {}).get("overall")
    return value


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
