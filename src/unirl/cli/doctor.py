"""`unirl doctor`: checks whether `fit` would start, and what it would need. Takes all options of `fit`."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from typing_extensions import override

from unirl.cli.train import Run
from unirl.cli.trainer_options import is_about_devices
from unirl.distributed import strategies
from unirl.doctor.environment import available_devices, check_import_name, check_plugins
from unirl.doctor.findings import Finding, format_findings
from unirl.doctor.models import check_models
from unirl.doctor.resources import check_resources
from unirl.doctor.resuming import check_resume
from unirl.doctor.scored_prompts import PROMPTS, check_prompts
from unirl.doctor.settings import check_settings, check_sizes, check_verdicts
from unirl.doctor.setup import setup_of
from unirl.errors import UserError
from unirl.hooks.requirements import resolve_requirements
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

MEASURE = "--measure"


class DryRun(Run):
    """Parses the options and makes model, data and trainer as `fit` does, and stops there.

    If the trainer cannot be made, `trainer` is None and `problem` has the reason.
    """

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
    """Print one line for each finding.

    Args:
        argv: Arguments after `unirl doctor`: those of `unirl fit`.

    Raises:
        UserError: `fit` would not start. Raised after the findings are printed.
    """
    with _quiet():
        findings = list(examine(argv))
    print(format_findings(findings))
    errors = [one for one in findings if one.level == "error"]
    if errors:
        raise UserError(f"fit would not start: {', '.join(dict.fromkeys(one.subject for one in errors))}; see above")


def examine(argv: list[str]) -> Iterator[Finding]:
    """Check everything that can be checked before a model is loaded.

    Args:
        argv: Arguments of `fit`, and perhaps `--measure`.
    """
    really, argv = MEASURE in argv, [argument for argument in argv if argument != MEASURE]
    plugins = check_plugins()
    yield from (*plugins, *check_import_name())
    if any(one.level == "error" for one in plugins):  # names in the config cannot be resolved
        return
    strategies.register()
    try:
        run = DryRun(SelfImprovement, PromptsDataModule, ["fit", *resolve_requirements(argv)])
    except UserError as error:
        yield Finding("error", "config", str(error))
        return
    yield Finding("ok", "config", "all options are valid; model, data and trainer can be made")
    setup = setup_of(run.config[run.subcommand].trainer, run.trainer)
    if run.trainer is None:
        about_devices = is_about_devices(run.problem)
        advice = available_devices() if about_devices else ""
        yield Finding("error", "devices" if about_devices else "trainer", run.problem, advice)
    yield from (*check_models(run.model), *check_verdicts(run.model))
    if run.trainer is None:
        settings = [*check_sizes(run.model, run.datamodule, setup.devices), *check_prompts(run, None)]
    else:
        settings = list(check_settings(run, run.trainer))
    yield from settings
    yield from check_resume(run, verify=True)
    if not any(one.subject == PROMPTS and one.level == "error" for one in settings):  # a step would find the same
        yield from check_resources(run.model, run.datamodule, setup, run.trainer, really)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages and warnings; the findings cover them."""
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
