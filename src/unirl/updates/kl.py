"""The KL penalty on a model's own answers."""

from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.functional.policy_gradient import decision_weights, k3
from unirl.types import Rollout
from unirl.updates.batching import scoring_batch
from unirl.updates.reference import Reference


def answer_kl(backbone: Backbone, rollout: Rollout, reference: Reference) -> Tensor:
    """The divergence of the answers of a rollout from those of the reference, in nats: the mean over images.

    Args:
        backbone: The model in training, which gave the answers.
        rollout: Samples, with a `micro_batch` where some of them are scored.
        reference: The model before training.

    Shapes:
        returns a scalar with gradient, 0 or more.

    Source: the k3 estimate, see `unirl.functional.k3`.
    """
    batch = scoring_batch(backbone, rollout)
    images, questions, answers = batch.images, batch.questions, batch.answers
    log_probs = backbone.answer_log_probs(images, questions, answers)
    with reference.active(backbone) as model:
        of_reference = model.answer_log_probs(images, questions, answers)
    weights = decision_weights(answers.mask, "sample") * rollout.answer_weights[batch.answer_rows, None]
    return (k3(log_probs, of_reference) * weights).sum() / len(rollout)
