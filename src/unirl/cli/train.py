"""`unirl fit`, `validate` and `test`: Lightning's command line, with our defaults and errors."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from unirl.callbacks import ExportPretrained, Guards, LogImages, ResultsTable, fault_tolerance_callbacks
from unirl.checkpoint import AtomicCheckpointIO, AtomicTrainer
from unirl.checkpoint.resume import resolve_ckpt_path
from unirl.cli.parser import PluginParser
from unirl.cli.run_errors import translate
from unirl.distributed import strategies
from unirl.doctor.settings import check_before_fit
from unirl.errors import UserError
from unirl.training.datamodule import PromptsDataModule
from unirl.training.module import SelfImprovement

TRAINER_DEFAULTS = {
    # FSDP2's first forward inside inference_mode breaks the next training step.
    "inference_mode": False,
    # Each rank draws its own prompts: draw i is a function of (seed, i).
    "use_distributed_sampler": False,
    "default_root_dir": "runs",
    # A step draws and scores whole pictures: there are few, and each is worth a point in the curves.
    "log_every_n_steps": 1,
}
# Nothing a user of `unirl` can act on: prompts are made on the fly, and other products are not ours to sell.
NOISE = (
    "does not have many workers",
    "Tip: For seamless",
    "Detected KeyboardInterrupt",
    "`max_epochs` was not set",
    "treespec, LeafSpec",
    "The dirpath has changed",
    "accumulate the metric across devices",  # torchmetrics has done so
    "module.s. in eval mode",  # the image tokenizer is frozen
)


class SaveConfig(SaveConfigCallback):
    """Saves the exact config beside the logs, and nowhere if nothing is logged."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Without a logger, Lightning's log_dir is the folder of all runs, or the working directory.
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class Run(LightningCLI):
    """One run of the trainer, configured by files and arguments.

    Args:
        model_class: The LightningModule; its constructor's arguments are the options under `model`.
        datamodule_class: The LightningDataModule; likewise under `data`.
        args: Subcommand and arguments.

    Raises:
        UserError: the config is wrong, or the run says so.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule],
        args: list[str],
    ) -> None:
        self._new_folder: Path | None = None
        super().__init__(
            model_class,
            datamodule_class,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_class=AtomicTrainer,
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": fault_tolerance_callbacks()},
            seed_everything_default=0,
            parser_class=PluginParser,
            parser_kwargs={"prog": "unirl", "description": "Self-improvement of unified multimodal models."},
            auto_configure_optimizers=False,
            args=args,
        )

    @staticmethod
    @override
    def subcommands() -> dict[str, set[str]]:
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name != "predict"}

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default="default", help="Folder of this run below `runs/`.")
        parser.add_argument(
            "--requires_plugins",
            type=list[str],
            default=[],
            help="Distributions that must be there: unirl-shapes>=0.2.",
        )
        parser.add_lightning_class_args(Guards, "guards")
        parser.add_lightning_class_args(LogImages, "images")
        parser.add_lightning_class_args(ResultsTable, "results")
        parser.add_lightning_class_args(ExportPretrained, "export")

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        # The base warns whenever arguments are passed rather than read from sys.argv.
        self.config = parser.parse_args(args)  # type: ignore[arg-type] # `__init__` takes nothing but a list

    @override
    def _parse_ckpt_path(self) -> None:
        # The base reads the whole checkpoint only to let its hyperparameters overrule the config and the command line.
        # Here what the user wrote counts; a checkpoint that is not there or not whole is refused before all else.
        options = self.config[self.config.subcommand]
        if options.get("ckpt_path"):
            options.ckpt_path = resolve_ckpt_path(options.ckpt_path, options)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        options = self.config_init[self.subcommand]
        if options.trainer.logger is None or options.trainer.logger is True:
            # The default of two minutes would be lost where TensorFlow writes the log and the run is killed.
            kwargs["logger"] = TensorBoardLogger(options.trainer.default_root_dir, name=options.name, flush_secs=1)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ImportError, ValueError, TypeError) as error:
            raise UserError(f"trainer: {error}") from error
        strategies.check(trainer.strategy)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nobody chose another
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        folder = trainer.log_dir if trainer.loggers else None
        self._new_folder = Path(folder) if folder and not Path(folder).exists() else None
        return trainer

    @override
    def _run_subcommand(self, subcommand: str) -> None:
        try:
            with translate():
                check_before_fit(self)
                super()._run_subcommand(subcommand)
        except UserError:
            self._leave_nothing()
            raise

    def _leave_nothing(self) -> None:
        # Lightning opens the log before the model is built; a run that fails there should leave no empty version.
        folder = self._new_folder
        if not folder or not folder.is_dir() or not self.trainer.is_global_zero or self.trainer.global_step > 0:
            return
        shutil.rmtree(folder)
        for parent in (folder.parent, folder.parent.parent):
            if parent.resolve() != Path.cwd() and not any(parent.iterdir()):
                parent.rmdir()


def fit(argv: list[str]) -> None:
    """Train.

    Args:
        argv: Arguments after `unirl fit`.

    Raises:
        UserError: the config is wrong, or the run says so.
    """
    _run(["fit", *argv])


def validate(argv: list[str]) -> None:
    """Measure on held-out prompts; arguments and errors as for `fit`."""
    _run(["validate", *argv])


def test(argv: list[str]) -> None:
    """Measure at the end; arguments and errors as for `fit`."""
    _run(["test", *argv])


def _run(argv: list[str]) -> None:
    _hush()
    strategies.register()
    Run(SelfImprovement, PromptsDataModule, argv)


def _hush() -> None:
    for text in NOISE:
        warnings.filterwarnings("ignore", f".*{text}.*")
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(text in record.getMessage() for text in NOISE))
