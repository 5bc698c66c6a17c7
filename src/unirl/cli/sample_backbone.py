"""Which backbone `unirl sample` loads a checkpoint by: the one that is named, or the one whose format it has."""

from importlib import import_module

from unirl.errors import UserError
from unirl.hooks.host import host

DEFAULT_BACKBONE = "showo"


def choose_backbone(name: str | None, checkpoint: str | None) -> str:
    """The registered name of the backbone of a checkpoint.

    Args:
        name: What `--backbone` says; None where it is not given.
        checkpoint: What `--checkpoint` says; None for the one that is shipped.

    Raises:
        UserError: the checkpoint is of another backbone than the named one, or of none.
    """
    kind = None if checkpoint is None else _checkpoint_type(checkpoint)
    if kind is None:
        return name or DEFAULT_BACKBONE
    readers = [one for one in sorted(host().registry["backbone"]) if kind in _model_types(one)]
    if name is not None:
        if readers and name in host().registry["backbone"] and name not in readers:
            raise UserError(
                f"--backbone {name}: {checkpoint} is a checkpoint of {' or '.join(readers)}; give --backbone "
                f"{readers[0]}, or leave --backbone out"
            )
        return name
    if not readers:
        known = ", ".join(sorted(host().registry["backbone"]))
        raise UserError(
            f"--checkpoint {checkpoint}: no registered backbone reads the type {kind!r} of its config.json; give "
            f"another checkpoint, or name the backbone with --backbone ({known})"
        )
    return readers[0]


def _checkpoint_type(checkpoint: str) -> str | None:
    """What config.json says; None where nothing can be read, so that the backbone says what is wrong."""
    from unirl.backbones.checkpoints import locate, read_json  # noqa: PLC0415 - `--help` needs no torch

    try:
        config = read_json(locate(checkpoint, files=("config.json",)) / "config.json")
    except UserError:
        return None
    kind = config.get("model_type") or config.get("_class_name")
    return kind if isinstance(kind, str) else None


def _model_types(name: str) -> tuple[str, ...]:
    module, _, cls = host().registry["backbone"][name].class_path.rpartition(".")
    try:
        return tuple(getattr(import_module(module), cls).model_types)
    except Exception:  # a plugin that is broken reads no checkpoint
        return ()
