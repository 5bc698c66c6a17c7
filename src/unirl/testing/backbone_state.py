"""What using a backbone must leave alone."""

from collections.abc import Callable
from typing import Any

import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import Checks, gap, require, seeded


def state(backbone: Backbone) -> dict[str, dict[str, Any]]:
    """What may not change while a model is used."""
    named = dict(backbone.named_parameters())
    return {
        "train or eval mode": {name: module.training for name, module in backbone.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in named.items()},
        "the gradient": {name: p.grad is not None for name, p in named.items()},
        "the weights": {name: (p._version, float(p.detach().double().sum())) for name, p in named.items()},
    }


class StateChecks(Checks):
    """Sampling and scoring change nothing, and train() draws what eval() draws."""

    def test_using_a_model_leaves_it_as_it_was(self, backbone: Backbone) -> None:
        prompts, questions = list(self.prompts), list(self.questions)
        images, seen = self.generate(backbone), self.seen(backbone, self.generate(backbone))
        pixels, given = backbone.decode(images).detach(), backbone.tokenize_answers(list(self.answers))
        calls: dict[str, Callable[[], Any]] = {
            "sample_images": lambda: self.generate(backbone),
            "image_log_probs": lambda: backbone.image_log_probs(prompts, images, self.sampling),
            "decode": lambda: backbone.decode(images),
            "encode": lambda: backbone.encode(pixels),
            "sample_answers": lambda: backbone.sample_answers(seen, questions, self.answering, seeded()),
            "answer_log_probs": lambda: backbone.answer_log_probs(seen, questions, given),
        }
        for mode in (True, False):
            backbone.train(mode)
            for method, call in calls.items():
                before = state(backbone)
                call()
                for what, values in state(backbone).items():
                    changed = [name for name, value in values.items() if before[what].get(name) != value]
                    where = changed and (changed[0] or "the model")
                    require(not changed, f"{method}: changes {what} of {where}; restore it before returning")

    @torch.no_grad()
    def test_train_mode_draws_what_eval_mode_draws(self, backbone: Backbone) -> None:
        images = self.generate(backbone.train())
        fault = "what was drawn in training would be scored as by another model; switch dropout off"
        same = torch.equal(images.codes, self.generate(backbone.eval()).codes)
        require(same, f"sample_images: draws otherwise in train() than in eval(); {fault}")
        one, other = (
            backbone.train(mode).image_log_probs(list(self.prompts), images, self.sampling)[0] for mode in (True, False)
        )
        off = gap(one, other)
        require(
            off <= self.tolerance,
            f"image_log_probs: scores otherwise in train() than in eval() (by {off:.2g} nats); {fault}",
        )
