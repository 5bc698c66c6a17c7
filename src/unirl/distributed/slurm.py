"""SLURM: the id of a job, and putting it back in the queue."""

import os
import shlex
import signal
import subprocess

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer


def requeue_signal(trainer: Trainer) -> signal.Signals | None:
    """The signal after which a SLURM job is requeued; None without SLURM, or where Lightning would not requeue either.

    Args:
        trainer: Running, so that Lightning has installed its handlers.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    wanted = environment.requeue_signal
    before = trainer._signal_connector._original_handlers.get(wanted) if wanted is not None else None
    return wanted if before in (None, signal.SIG_DFL) else None


def slurm_job_id() -> str | None:
    """The id of the SLURM job that this process belongs to, as `scontrol` takes it; None without SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID")


def requeue_job() -> str:
    """Put the SLURM job of this process back in the queue.

    Returns:
        What to tell the user: a sentence that begins with a space.
    """
    command = ["scontrol", "requeue", str(slurm_job_id())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        problem = f"exit code {done.returncode}: {done.stderr.strip()}" if done.returncode else None
    except OSError as error:
        problem = str(error)
    if problem is None:
        return f" SLURM job {command[-1]} is requeued."
    return f" `{shlex.join(command)}` failed ({problem}); submit the job again."


def is_restarted_job() -> bool:
    """Whether SLURM has requeued the job of this process."""
    return SLURMEnvironment.detect() and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
