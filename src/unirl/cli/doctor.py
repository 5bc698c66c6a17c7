"""`unirl doctor`: would `fit` start, and what would it need? Takes every option of `fit`, and leaves nothing behind."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from typing_extensions import override

from unirl.cli.train import Run
from unirl.distributed import strategies
from unirl.doctor.environment import available_devices, check_checkpoint, check_import_name, check_plugins
from unirl.doctor.findings import Finding, format_findings
from unirl.doctor.resources import check_resources
from unirl.doctor.settings import check_settings
from unirl.errors import UserError
from unirl.hooks.requirements import resolve_requirements
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement


class Examined(Run):
    """Parses and makes what `fit` does, and runs nothing. Where no trainer can be made, says why."""

    problem: str = ""

    @override
    def instantiate_trainer(self, **kwargs: object) -> Trainer | None:  # type: ignore[override]
        try:
            return super().instantiate_trainer(**kwargs)
        except UserError as error:
            self.problem = str(error)
            return None

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        pass


def main(argv: list[str]) -> None:
    """Print one line a finding.

    Args:
        argv: Arguments after `unirl doctor`: those of `unirl fit`.

    Raises:
        UserError: after the findings, if `fit` would not start.
    """
    with _silence():
        findings = list(examine(argv))
    print(format_findings(findings))
    errors = [one for one in findings if one.level == "error"]
    if errors:
        raise UserError(f"fit would not start: {', '.join(dict.fromkeys(one.subject for one in errors))}; see above")


def examine(argv: list[str]) -> Iterator[Finding]:
    """All that can be known before anything loads.

    Args:
        argv: Arguments of `fit`.
    """
    plugins = check_plugins()
    yield from (*plugins, *check_import_name())
    if any(one.level == "error" for one in plugins):  # without them no name in the config means anything
        return
    strategies.register()
    try:
        run = Examined(SelfImprovement, PromptsDataModule, ["fit", *resolve_requirements(argv)])
    except UserError as error:
        yield Finding("error", "config", str(error))
        return
    yield Finding("ok", "config", "every option is known, and every part of the run can be made")
    if run.trainer is None:
        yield Finding("error", "devices", run.problem, available_devices())
        yield from check_checkpoint(run.model.backbone)
        return
    yield from check_checkpoint(run.model.backbone)
    yield from check_settings(run, run.trainer)
    yield from check_resources(run.model, run.datamodule, run.trainer)


@contextmanager
def _silence() -> Iterator[None]:
    """What a trainer says of itself while it is made is among the findings."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
