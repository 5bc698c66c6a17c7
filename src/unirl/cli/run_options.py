"""The options of a run, and the help on them. It reads classes without importing them, so that help needs no torch."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unirl.cli.show import MAX_WIDTH, option_table
from unirl.errors import UserError, suggest
from unirl.hooks.host import host
from unirl.hooks.inspect import ClassSource, Parameter, read
from unirl.hooks.kinds import KINDS

FLAGS = ("-h", "--help")
ALL = "all"
"""`--help all` is the page of jsonargparse, with all known subclasses."""
TRAINER_DEFAULTS: Mapping[str, Any] = {
    # FSDP2's first forward pass inside inference_mode breaks the next training step.
    "inference_mode": False,
    # The data module gives each rank its own prompts.
    "use_distributed_sampler": False,
    "default_root_dir": "runs",
    # Steps are few and long, since each generates and scores images.
    "log_every_n_steps": 1,
}
"""Defaults that differ from Lightning's."""
CKPT_PATH = (
    'Checkpoint to load: a .ckpt file, the folder of a sharded checkpoint, "last" for the newest valid checkpoint of '
    'the runs with this name, or "hpc" for the one that Lightning saved before a cluster requeued the job.'
)
TRAINER_TITLE = "Lightning's Trainer"
TOP_LEVEL: Mapping[str, str] = {
    "config": "Options in YAML. Can be given several times; later ones override earlier ones.",
    "ckpt_path": CKPT_PATH,
    "name": "Folder of this run below `runs/`.",
    "seed_everything": "Seed of everything random; `model.seed` and `data.seed` unless they are given.",
    "requires_plugins": "Distributions that this config needs, such as unirl-shapes>=0.2.",
    "plugin_options": "Plugin options of this config, as on the command line. Files are relative to its folder.",
    "weights_only": "Load checkpoints that hold nothing but tensors and plain data.",
    "print_config": "Print all options with their values, and exit.",
}
"""Options that belong to no group."""
GROUPS: Mapping[str, str] = {
    "model": "unirl.training.module:SelfImprovement",
    "data": "unirl.training.datamodule:PromptsDataModule",
    "trainer": "lightning.pytorch.trainer.trainer:Trainer",
    "guards": "unirl.callbacks.guards:Guards",
    "images": "unirl.callbacks.images:LogImages",
    "results": "unirl.callbacks.results:ResultsTable",
    "report": "unirl.callbacks.run_report:Report",
    "export": "unirl.callbacks.export:ExportPretrained",
}
"""The class whose constructor has the options of each group."""
_DEFAULT = re.compile(r" Default: ``[^`]*``\.?(?= |$)")
DESCRIPTIONS: Mapping[str, str] = {
    "fit": "Train a model by self-improvement.",
    "validate": "Evaluate a model on held-out prompts.",
    "test": "Evaluate a trained model on held-out prompts.",
    "doctor": """\
Check whether `unirl fit` would start with these options, and what it would need: plugins, checkpoints, devices, memory,
disk. Prints a line for each; exit code 2 if fit would not start. The peak of memory is measured on tensors without
contents, so no model is loaded, and no GPU is needed.

  --measure   also measure the peak under ddp and fsdp2, and really run a step where the model fits on this machine""",
}


def help_page(command: str, arguments: Sequence[str]) -> str | None:
    """The help that the arguments of a command ask for.

    Args:
        command: One of `DESCRIPTIONS`.
        arguments: Arguments after the command.

    Returns:
        None where they ask for none, or for `--help all`.

    Raises:
        UserError: there is no such group of options.

    Example:
        >>> help_page("fit", ["--help"]).splitlines()[0]
        'usage: unirl fit --config FILE [--config OVERLAY] [--OPTION VALUE] ...'
    """
    index = next((i for i, word in enumerate(arguments) if word in FLAGS), None)
    if index is None:
        return None
    group = next(iter(arguments[index + 1 :]), "-")
    if group.startswith("-"):
        return _overview(command)
    if group == ALL and command != "doctor":
        return None
    sources = _sources()
    if group not in sources:
        known = [*sources] if command == "doctor" else [*sources, ALL]
        raise UserError(f"{command} {arguments[index]}: no group of options {group!r}; {suggest(group, known)}")
    return "\n".join(_group_page(group, sources[group]))


def _overview(command: str) -> str:
    width = _width()
    names = [f"--{name}" for name in TOP_LEVEL]
    indent = max(map(len, names)) + 4
    options = [_hanging(f"  {name}", text, indent, width) for name, text in zip(names, TOP_LEVEL.values(), strict=True)]
    members = {group: ", ".join(one.name for one in source.parameters) for group, source in _sources().items()}
    groups = [_hanging(f"  --{group}", names, indent, width) for group, names in members.items()]
    run = "fit" if command == "doctor" else command
    more = [
        f"unirl {run} --help GROUP lists the options of a group, such as unirl {run} --help model;",
        f"unirl {run} --help all lists everything; unirl plugins show NAME has the options of a plugin.",
    ]
    usage = f"usage: unirl {command} --config FILE [--config OVERLAY] [--OPTION VALUE] ..."
    title = "options, in groups; write --GROUP.OPTION VALUE, such as --data.prompts_per_step 16:"
    return "\n".join([usage, "", DESCRIPTIONS[command], "", *options, "", title, "", *groups, "", *more])


def _sources() -> dict[str, ClassSource]:
    """The classes of the groups that have options."""
    sources = {group: read(path) for group, path in GROUPS.items()}
    return {group: source for group, source in sources.items() if source.parameters}


def _group_page(group: str, source: ClassSource) -> Iterator[str]:
    yield TRAINER_TITLE if group == "trainer" else source.summary.partition("\n\n")[0]
    yield ""
    yield from option_table([*_parameters(group, source)], _width(), f"--{group}.")


def _parameters(group: str, source: ClassSource) -> Iterator[Parameter]:
    kinds = {kind.config_key: kind.name for kind in KINDS.values()}
    for one in source.parameters:
        if group == "trainer" and one.name in TRAINER_DEFAULTS:
            default, description = repr(TRAINER_DEFAULTS[one.name]), _DEFAULT.sub("", one.description)
            yield replace(one, default=default, description=description)
        elif kind := kinds.get(f"{group}.{one.name}"):
            names = ", ".join(sorted(host().registry[kind]))
            yield replace(one, description=f"{one.description} Known: {names}; or a class path.")
        else:
            yield one


def _hanging(start: str, text: str, indent: int, width: int) -> str:
    return textwrap.fill(text, width, initial_indent=f"{start:<{indent}}", subsequent_indent=" " * indent)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, MAX_WIDTH)
