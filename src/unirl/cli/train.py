"""`unirl fit`, `validate` and `test`: Lightning's command line with defaults and error messages for these runs."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from typing_extensions import override

from unirl import callbacks
from unirl.callbacks import (
    ExportPretrained,
    Guards,
    LogImages,
    ParameterCount,
    Report,
    ResultsTable,
    RunProgressBar,
    fault_tolerance_callbacks,
)
from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer
from unirl.checkpoint.resume import JOB_FILE, RUN, check_ckpt_path, checkpoint_folders
from unirl.checkpoint.run_folder import RunFolder
from unirl.cli.lightning_messages import silence_lightning
from unirl.cli.parser import PluginParser
from unirl.cli.run_errors import translate
from unirl.cli.run_options import CKPT_PATH, DESCRIPTIONS, TOP_LEVEL, TRAINER_DEFAULTS, TRAINER_TITLE
from unirl.cli.trainer_options import check_trainer_options, trainer_error
from unirl.distributed import strategies
from unirl.distributed.slurm import is_restarted_job, slurm_job_id
from unirl.doctor.resuming import CONFIG
from unirl.doctor.settings import check_before_fit
from unirl.errors import UserError
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

NAMED_CALLBACKS = [getattr(callbacks, name) for name in callbacks.__all__]
"""Imported, so that configs can name them without a path: jsonargparse looks at the modules that are imported."""
CALLBACKS = {
    **{"guards": Guards, "images": LogImages, "results": ResultsTable},
    **{"report": Report, "export": ExportPretrained},
}
"""Callbacks of every run, by the option group that configures them."""
SEEDED = ("model", "data")
"""Option groups whose `seed` is that of `--seed_everything` unless it is given."""
USAGE = "--config FILE [--config OVERLAY] [--OPTION VALUE] ..."


class SaveConfig(SaveConfigCallback):
    """Saves the config in the folder of the run, and in checkpoints with the name of that folder."""

    _text = ""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._text = self.parser.dump(self.config, skip_none=False)
        log_dir, job_id = trainer.log_dir, slurm_job_id()  # log_dir is collective
        if log_dir is not None and job_id is not None and trainer.is_global_zero:
            (Path(log_dir) / JOB_FILE).write_text(job_id, encoding="utf-8")

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG] = self._text
        folder = getattr(trainer, "run_folder", None)
        if folder is not None and folder.path is not None:
            checkpoint[RUN] = folder.path.name


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
        self._resume_folders: list[Path] | None = None
        self._command = args[0]
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

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # a method: it depends on the arguments
        # The one that is run: each has a parser of its own, and `unirl` knows the names of all.
        # Without `verbose`, so that each command reads the config that another one saved.
        return {self._command: {*LightningCLI.subcommands()[self._command], "verbose"}}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if parser.groups:
            parser.groups["trainer"].title = TRAINER_TITLE  # not the docstring of our subclass
        parser.add_argument("--name", type=str, default="default", help=TOP_LEVEL["name"])
        parser.add_argument(
            "--requires_plugins",
            type=list[str],
            default=[],
            help=TOP_LEVEL["requires_plugins"],
        )
        parser.add_argument(
            "--plugin_options",
            type=str,
            default="",
            help=TOP_LEVEL["plugin_options"],
        )
        for group, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, group)

    @override
    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.description = DESCRIPTIONS[subcommand]
        for group in parser._action_groups:
            for action in group._group_actions:
                if action.dest == "ckpt_path":  # Lightning's text offers values that are refused
                    group.title, action.help = "Checkpoint to load", CKPT_PATH
        return parser

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

    @property
    def ckpt_path(self) -> Path | list[Path] | None:
        """The checkpoint to load, or the folders whose newest one it is; None for none, or a remote one."""
        given = self.config[self.config.subcommand].get("ckpt_path")
        if self._resume_folders is not None or not given:
            return self._resume_folders
        return None if given == "hpc" or "://" in given else Path(given)

    def config_text(self) -> str:
        """The config of the run, in YAML."""
        text: str = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
        return text

    @override
    def instantiate_classes(self) -> None:
        options = self.config[self.subcommand]
        seed, unset = options.seed_everything, [group for group in SEEDED if options[group].get("seed", 0) is None]
        for group in unset:
            options[group].seed = int(seed)
        super().instantiate_classes()
        for group in unset:
            options[group].seed = None  # in the saved config, so that another --seed_everything decides again

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self.config_init[self.subcommand]
        check_trainer_options(options.trainer)
        if options.trainer.logger is None or options.trainer.logger is True:
            # The default of 120 s would lose the last steps of a run that is killed.
            kwargs["logger"] = TensorBoardLogger(options.trainer.default_root_dir, name=options.name, flush_secs=1)
        kwargs["callbacks"] = _with_progress(options.trainer)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
            raise trainer_error(error) from error
        assert isinstance(trainer, AtomicTrainer)
        trainer.resume_folders = self._resume_folders
        strategies.check(trainer.strategy)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if options.trainer.fast_dev_run:  # a short trial leaves nothing
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint):
                    callback.save_last = None  # written at the end all the same
        elif "://" not in trainer.default_root_dir:
            trainer.run_folder = RunFolder(Path(trainer.default_root_dir), options.name)
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
            folder = getattr(self.trainer, "run_folder", None)
            # It is made before the model is built, which may fail.
            if folder is not None and self.trainer.is_global_zero and self.trainer.global_step == 0:
                folder.remove()
            raise


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
    silence_lightning()
    strategies.register()
    Run(SelfImprovement, PromptsDataModule, argv)
