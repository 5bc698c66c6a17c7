"""How Lightning writes and reads checkpoints of one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from typing_extensions import override

from unirl.checkpointing.checking import fault
from unirl.checkpointing.finding import refused
from unirl.checkpointing.writing import write_whole
from unirl.errors import UserError


class CheckpointFiles(TorchCheckpointIO):
    """Whole files or none, and nothing but data. A save that fails is told, and the run goes on.

    Where a save failed, older checkpoints are kept, though there may be more of them than was asked for, till one
    succeeds. Addresses such as `s3://` are left to Lightning.
    """

    def __init__(self) -> None:
        self._failed, self._warned, self._superseded = False, False, list[Path]()

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_whole(checkpoint, Path(path))
        except OSError as error:
            self._failed = True
            rank_zero_warn(
                f"no checkpoint was saved at step {checkpoint.get('global_step', '?')}: {error.strerror} ({path}). "
                "The run goes on, older checkpoints are kept, and the next save tries again"
            )
            return
        self._warn_of_code(Path(path))
        self._failed = False
        for old in self._superseded:
            if old != Path(path):
                super().remove_checkpoint(old)
        self._superseded.clear()

    @override
    def load_checkpoint(
        self, path: Any, map_location: Callable | None = lambda storage, loc: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if "://" not in str(path) and (why := fault(Path(path))) is not None:
            raise UserError(refused(Path(path), why))
        try:
            return super().load_checkpoint(path, map_location, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # of another writer, without a seal: a flipped bit may show only here
            raise UserError(refused(Path(path), f"broken: {' '.join(str(error).split())[:120]}")) from error

    @override
    def remove_checkpoint(self, path: Any) -> None:
        if self._failed:
            self._superseded.append(Path(path))
        else:
            super().remove_checkpoint(path)

    def _warn_of_code(self, path: Path) -> None:
        # Told when it is saved, and not days later, when it is needed.
        unsafe = [] if self._warned else sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        if unsafe:
            self._warned = True
            rank_zero_warn(
                f"{path} holds {', '.join(unsafe[:3])}, which no run will load, for it could run code. Whoever puts it "
                "there should save tensors and plain values, or call torch.serialization.add_safe_globals"
            )
