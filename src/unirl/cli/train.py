"""`unirl fit`, `validate` and `test`: Lightning's command line with defaults and error messages for these runs."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from unirl.callbacks import (
    ExportPretrained,
    Guards,
    LogImages,
    ParameterCount,
    ResultsTable,
    RunProgressBar,
    fault_tolerance_callbacks,
)
from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer
from unirl.checkpoint.resume import JOB_FILE, check_ckpt_path, checkpoint_folders
from unirl.cli.parser import PluginParser
from unirl.cli.run_errors import translate
from unirl.distributed import strategies
from unirl.distributed.slurm import is_restarted_job, slurm_job_id
from unirl.doctor.settings import check_before_fit
from unirl.errors import UserError
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

TRAINER_DEFAULTS = {
    # FSDP2's first forward pass inside inference_mode breaks the next training step.
    "inference_mode": False,
    # The data module gives each rank its own prompts.
    "use_distributed_sampler": False,
    "default_root_dir": "runs",
    # Steps are few and long, since each generates and scores images.
    "log_every_n_steps": 1,
}
CALLBACKS = {"guards": Guards, "images": LogImages, "results": ResultsTable, "export": ExportPretrained}
"""Callbacks of every run, by the option group that configures them."""
USAGE = "--config FILE [--config OVERLAY] [--OPTION VALUE] ..."
IGNORED_WARNINGS = (
    "does not have many workers",  # prompts are made in the training process
    "Tip: For seamless",
    "Detected KeyboardInterrupt",
    "`max_epochs` was not set",
    "treespec, LeafSpec",
    "The dirpath has changed",
    "accumulate the metric across devices",  # torchmetrics does
    "module.s. in eval mode",  # the image tokenizer is frozen
    "TPU available: False",
    "to estimate number of stepping batches",
    "already configured with model summary",
    "weights_only` was not set",
)
"""Parts of Lightning's messages that users can do nothing about."""


class SaveConfig(SaveConfigCallback):
    """Saves the config in the log folder, if there is a logger."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Without a logger, `log_dir` is the folder of all runs, or the working directory.
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)
            log_dir, job_id = trainer.log_dir, slurm_job_id()  # log_dir is collective
            if log_dir is not None and job_id is not None and trainer.is_global_zero:
                (Path(log_dir) / JOB_FILE).write_text(job_id, encoding="utf-8")


class Run(LightningCLI):
    """A run of the trainer, configured by files and arguments.

    Args:
        model_class: The LightningModule. The arguments of its constructor are the options under `model`.
        datamodule_class: The LightningDataModule. The arguments of its constructor are the options under `data`.
        args: Subcommand and arguments.

    Raises:
        UserError: the config is wrong, or the run fails for a reason that the user can fix.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule],
        args: list[str],
    ) -> None:
        self._new_log_dir: Path | None = None
        self._resume_folders: list[Path] | None = None
        super().__init__(
            model_class,
            datamodule_class,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_class=AtomicTrainer,
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": fault_tolerance_callbacks()},
            seed_everything_default=0,
            parser_class=PluginParser,
            parser_kwargs={
                "prog": "unirl",
                "description": "Self-improvement of unified multimodal models.",
                **{name: {"usage": f"unirl {name} {USAGE}"} for name in self.subcommands()},
            },
            auto_configure_optimizers=False,  # `SelfImprovement` makes optimizer and scheduler itself
            args=args,
        )

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        # Without `verbose`, so that each command reads the config that another one saved.
        commands = LightningCLI.subcommands().items()
        return {name: {*skip, "verbose"} for name, skip in commands if name != "predict"}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="default", help="Folder of this run below `runs/`.")
        parser.add_argument(
            "--requires_plugins",
            type=list[str],
            default=[],
            help="Distributions that this config needs, such as unirl-shapes>=0.2.",
        )
        parser.add_argument(
            "--plugin_options",
            type=str,
            default="",
            help="Plugin options of this config, as on the command line. Files are relative to the config's folder.",
        )
        for group, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # The base class warns if `args` is given.
        self.config = parser.parse_args(args)  # type: ignore[arg-type] # `__init__` takes nothing but a list
        options = self.config[self.config.subcommand]
        if options.trainer.strategy == "fsdp":
            rank_zero_info("trainer.strategy: 'fsdp' is FSDP2 here, as 'fsdp2' is")
            options.trainer.strategy = strategies.FSDP2

    @override
    def _parse_ckpt_path(self) -> None:
        # The base class reads the whole checkpoint, and lets its hyperparameters override config and command line.
        options = self.config[self.config.subcommand]
        if options.get("ckpt_path") == "last":
            self._resume_folders, options.ckpt_path = checkpoint_folders(options), None
        elif options.get("ckpt_path"):
            check_ckpt_path(options.ckpt_path)
        elif self.config.subcommand == "fit" and is_restarted_job():
            self._resume_folders = checkpoint_folders(options, slurm_job_id())

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self.config_init[self.subcommand]
        if options.trainer.logger is None or options.trainer.logger is True:
            # The default of 120 s would lose the last steps of a run that is killed.
            kwargs["logger"] = TensorBoardLogger(options.trainer.default_root_dir, name=options.name, flush_secs=1)
        kwargs["callbacks"] = _with_progress(options.trainer)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
            raise UserError(f"trainer: {error}") from error
        assert isinstance(trainer, AtomicTrainer)
        trainer.resume_folders = self._resume_folders
        strategies.check(trainer.strategy)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        log_dir = trainer.log_dir if trainer.loggers else None
        self._new_log_dir = Path(log_dir) if log_dir and not Path(log_dir).exists() else None
        return trainer

    @override
    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # `verbose` prints the metrics that `ResultsTable` prints.
        verbose = {} if subcommand == "fit" else {"verbose": False}
        return {**super()._prepare_subcommand_kwargs(subcommand), **verbose}

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with translate():
                check_before_fit(self)
                super()._run_subcommand(subcommand)
        except UserError:
            self._remove_empty_log_dir()
            raise

    def _remove_empty_log_dir(self) -> None:
        # Lightning creates the log before the model is built, which may fail.
        log_dir = self._new_log_dir
        if not log_dir or not log_dir.is_dir() or not self.trainer.is_global_zero or self.trainer.global_step > 0:
            return
        shutil.rmtree(log_dir)
        for parent in (log_dir.parent, log_dir.parent.parent):
            if parent.resolve() != Path.cwd() and not any(parent.iterdir()):
                parent.rmdir()


def fit(argv: list[str]) -> None:
    """Train.

    Args:
        argv: Arguments after `unirl fit`.

    Raises:
        UserError: the config is wrong, or the run fails for a reason that the user can fix.
    """
    _run(["fit", *argv])


def validate(argv: list[str]) -> None:
    """Evaluate on held-out prompts. Arguments and errors as for `fit`."""
    _run(["validate", *argv])


def test(argv: list[str]) -> None:
    """Evaluate after training. Arguments and errors as for `fit`."""
    _run(["test", *argv])


def _with_progress(trainer: Namespace) -> list[Callback]:
    """The callbacks of a trainer's options, with our progress bar and summary where these are on and there is none."""
    given = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    callbacks: list[Callback] = [callback for callback in given if callback is not None]
    kinds: list[tuple[type[Callback], type[Callback], bool | None]] = [
        (ProgressBar, RunProgressBar, trainer.enable_progress_bar),
        (ModelSummary, ParameterCount, trainer.enable_model_summary),
    ]
    for kind, ours, enabled in kinds:
        if enabled is not False and not trainer.barebones and not any(isinstance(c, kind) for c in callbacks):
            callbacks.append(ours())
    return callbacks


def _run(argv: list[str]) -> None:
    _ignore_warnings()
    strategies.register()
    Run(SelfImprovement, PromptsDataModule, argv)


def _ignore_warnings() -> None:
    for text in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", f".*{text}.*")
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(text in record.getMessage() for text in IGNORED_WARNINGS))
