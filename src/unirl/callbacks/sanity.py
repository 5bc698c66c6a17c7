"""Lightning's sanity check ahead of the first step: a whole validation, or a taste of one."""

from lightning import Trainer


def partial_check(trainer: Trainer) -> bool:
    """Whether a validation is a sanity check of some batches only: nothing to compare with."""
    return trainer.sanity_checking and trainer.num_sanity_val_steps != float("inf")
