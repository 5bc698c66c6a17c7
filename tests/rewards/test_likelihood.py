from pathlib import Path

import torch

from unirl.backbones.showo import Showo
from unirl.rewards import Likelihood
from unirl.types import AnswerSampling, ImageSampling
from unirl_shapes.prompts import ShapesPrompts


def test_geometric_mean_over_the_tokens_of_the_right_answer(shapes_checkpoint: Path) -> None:
    backbone, reward = Showo.from_pretrained(str(shapes_checkpoint)), Likelihood()
    reward.attach(backbone)
    examples = ShapesPrompts().held_out(6)
    images = backbone.sample_images([e.prompt for e in examples], ImageSampling(4), torch.Generator().manual_seed(0))
    answers = backbone.sample_answers(images, [e.question for e in examples], AnswerSampling(3))
    scores = reward.score(examples, images, answers)
    for i, example in enumerate(examples):
        target = backbone.tokenize_answers([example.answer])
        log_probs = backbone.answer_log_probs(images[i : i + 1], [example.question], target)
        torch.testing.assert_close(scores[i], log_probs[target.mask].mean().exp().detach())
    assert not scores.requires_grad
    assert ((scores > 0) & (scores < 1)).all()
