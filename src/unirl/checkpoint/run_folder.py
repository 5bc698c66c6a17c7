"""The folder of a run, `runs/NAME/version_N`: what the run leaves is there, whatever logs its metrics."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

UNNAMED = "lightning_logs"
"""The name that Lightning's loggers have by default."""
Place = tuple[str, int]
"""Name and version of a logger, which decide its folder."""


class RunFolder:
    """The folder of one run. It is made when it is asked for first, and no other run gets the same.

    Checkpoints whose `dirpath` is not given are saved in it. So are the files of TensorBoardLogger and CSVLogger, where
    `save_dir` is the folder of all runs, and name and version are not given; with another `save_dir` or name, the
    version is taken in that folder in the same way.

    Args:
        runs: The folder of all runs.
        name: Of this run.
    """

    def __init__(self, runs: Path, name: str) -> None:
        self.root, self.name = runs / name, name
        self.path: Path | None = None
        self._made: list[Path] = []

    def take(self, trainer: Trainer) -> Path:
        """The folder. Collective: call it on every rank, after the processes of the strategy are set up.

        Args:
            trainer: Of the run.
        """
        if self.path is None:
            taken: Any = self._take(trainer.loggers) if trainer.is_global_zero else None
            path, places = trainer.strategy.broadcast(taken)
            for logger, place in zip(trainer.loggers, places, strict=True):
                if place is not None and isinstance(logger, TensorBoardLogger | CSVLogger):
                    logger._name, logger._version = place
                if isinstance(logger, CSVLogger):
                    _ = logger.experiment  # it expects an empty folder
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str(path / "checkpoints")
            self.path = path
        return self.path

    def remove(self) -> None:
        """Remove the folders that were made, unless results were written; those above them only if they are empty."""
        if any(path.joinpath("results.json").is_file() for path in self._made):
            return
        for path in reversed(self._made):
            if version_of(path.name) >= 0:
                shutil.rmtree(path, ignore_errors=True)
            else:
                _remove_empty(path)

    def _take(self, loggers: Sequence[Logger]) -> tuple[Path, list[Place | None]]:
        path = self._make(self.root)
        versions = {self.root.resolve(): version_of(path.name)}
        return path, [self._place(logger, versions) for logger in loggers]

    def _place(self, logger: Logger, versions: dict[Path, int]) -> Place | None:
        """Where a logger writes; None if its version is given, or it is of another kind.

        Args:
            logger: Which.
            versions: Those that this run has taken, by the folder of all versions.
        """
        if not isinstance(logger, TensorBoardLogger | CSVLogger) or logger._version is not None:
            return None
        folder, name = logger.save_dir, self.name if logger.name == UNNAMED else logger.name
        if "://" in folder:
            return None
        if isinstance(logger, TensorBoardLogger):
            folder = os.path.expanduser(os.path.expandvars(folder))
        root = (Path(folder) / name).resolve()
        if root not in versions:
            versions[root] = version_of(self._make(root).name)
        return name, versions[root]

    def _make(self, root: Path) -> Path:
        above = [folder for folder in (root, *root.parents) if not folder.exists()]
        path = take_version(root)
        self._made += [*reversed(above), path]
        return path


def take_version(root: Path) -> Path:
    """Make the folder `version_N` with the next free number. Processes that do so at the same time get different ones.

    Args:
        root: The folder of all versions; need not exist.

    Raises:
        OSError: it cannot be made.
    """
    number = max([version_of(path.name) for path in root.glob("version_*")], default=-1) + 1
    while True:
        path = root / f"version_{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


def version_of(name: str) -> int:
    """The number of a folder `version_N`; -1 for another name.

    Example:
        >>> version_of("version_12"), version_of("version_12_copy"), version_of("seed0")
        (12, -1, -1)
    """
    match = re.fullmatch(r"version_(\d+)", name)
    return int(match[1]) if match else -1


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # not empty: another run has begun
        return
