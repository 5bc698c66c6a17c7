"""Which checks are made when."""

from collections.abc import Iterator
from typing import Any, Protocol

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from unirl.doctor.devices import check_devices
from unirl.doctor.disk import check_disk, log_folder
from unirl.doctor.features import check_features
from unirl.doctor.findings import Finding, refuse
from unirl.doctor.sizes import check_shares, check_sizes, check_validation


class Made(Protocol):
    """What a command line was parsed into, as `LightningCLI` holds it: all made, nothing built."""

    model: Any
    datamodule: Any
    trainer: Any


def before_building(run: Made) -> None:
    """The cheap part of the doctor, for `fit`: nothing is built. The backbone itself looks for its checkpoint at once.

    Args:
        run: About to start.

    Raises:
        UserError: it would fail.
    """
    findings = [*checked_settings(run, run.trainer), *check_disk(log_folder(run.trainer))]
    refuse(findings)
    for one in findings:
        if one.level == "warning":
            rank_zero_warn(str(one))


def checked_settings(run: Made, trainer: Trainer) -> Iterator[Finding]:
    """Devices, sizes, and what only validation would load.

    Args:
        run: Made, not built.
        trainer: Of the run.
    """
    yield from check_devices(trainer)
    yield from check_sizes(run.model, run.datamodule, trainer.num_devices * trainer.num_nodes)
    yield from check_validation(run.datamodule, trainer.val_check_interval, trainer.check_val_every_n_epoch)
    yield from check_shares(run.datamodule, trainer)
    yield from check_features(run.model)
