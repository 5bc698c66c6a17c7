"""Pure functions: advantages, policy gradient, posterior, reductions, Gumbel noise, seeds, shares, standard errors."""

from unirl.functional.advantages import group_advantages, group_mean, group_std, zero_variance_groups
from unirl.functional.gumbel import conditional_gumbel, gumbel, straight_through
from unirl.functional.policy_gradient import (
    Reduction,
    clip_ratio,
    clipped_objective,
    decision_weights,
    geometric_mean,
    k3,
)
from unirl.functional.posterior import candidate_priors, posterior
from unirl.functional.reductions import masked_mean, zero_loss
from unirl.functional.seeding import (
    PerImageGenerator,
    RowGenerator,
    derive_seed,
    draw_rows,
    generator_for,
    multinomial,
)
from unirl.functional.shares import variance_shares
from unirl.functional.standard_errors import difference_errors

__all__ = [
    "PerImageGenerator",
    "Reduction",
    "RowGenerator",
    "candidate_priors",
    "clip_ratio",
    "clipped_objective",
    "conditional_gumbel",
    "decision_weights",
    "derive_seed",
    "difference_errors",
    "draw_rows",
    "generator_for",
    "geometric_mean",
    "group_advantages",
    "group_mean",
    "group_std",
    "gumbel",
    "k3",
    "masked_mean",
    "multinomial",
    "posterior",
    "straight_through",
    "variance_shares",
    "zero_loss",
    "zero_variance_groups",
]
