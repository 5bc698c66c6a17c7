"""Backbones that draw, score drawings or decode in a wrong way, one fault each."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unirl.testing import TableBackbone
from unirl.types import Images


class Altered(TableBackbone):
    """Draws as it should; derived ones change what comes out."""

    def drawn(self, images: Images) -> Images:
        return images

    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return self.drawn(super().sample_images(prompts, sampling, generator))


class FloatCodes(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, codes=images.codes.float())


class NoLogProbs(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=None)


class ShortLogProbs(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs[:, 1:])


class Densities(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, log_probs=images.log_probs + 9)


class LostMemory(Altered):
    def drawn(self, images: Images) -> Images:
        return replace(images, memory={"steps": images.codes[1:]})


class Turned(Altered):
    def drawn(self, images: Images) -> Images:
        return images[torch.arange(len(images)).flip(0)]


class Ungenerated(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, None)


class Stubborn(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        return super().sample_images(prompts, sampling, torch.Generator().manual_seed(3))


class Shuffling(Altered):
    def drawn(self, images: Images) -> Images:
        random.random()
        return images


class OneDrawing(TableBackbone):
    def sample_images(self, prompts: Sequence[str], sampling: Any, generator: Any = None) -> Images:
        drawn = {p: super(OneDrawing, self).sample_images([p], sampling, generator) for p in dict.fromkeys(prompts)}
        index = torch.tensor([list(drawn).index(prompt) for prompt in prompts])
        fields = ("codes", "actions", "log_probs")
        return Images(**{name: torch.cat([getattr(one, name) for one in drawn.values()])[index] for name in fields})


class Cold(TableBackbone):
    def image_log_probs(self, prompts: Any, images: Any, sampling: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        return super().image_log_probs(prompts, images, replace(sampling, temperature=1.0), *rest)


class Unguided(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(prompts, codes, 0.0)


class Promptless(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        return super().code_logits(["a"] * len(prompts), codes, guidance)


class Crowded(TableBackbone):
    def code_logits(self, prompts: Sequence[str], codes: Tensor, guidance: float) -> Tensor:
        logits = super().code_logits(prompts, codes, guidance)
        return logits - logits.mean(0, keepdim=True) / 2


class Masked(TableBackbone):
    """Says that it scored everything, and didn't."""

    def image_log_probs(
        self, prompts: Any, images: Any, sampling: Any, scored: Any = None, generator: Any = None
    ) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(prompts, images, sampling)
        return (log_probs * (torch.arange(4) < scored) if scored else log_probs), mask


class FloatMask(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask.float()


class HalfMask(TableBackbone):
    def image_log_probs(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, mask = super().image_log_probs(*args)
        return log_probs, mask & (torch.arange(4) > 0)


class Unweighed(TableBackbone):
    def image_log_likelihood(self, *args: Any) -> tuple[Tensor, Tensor]:
        log_probs, _ = super().image_log_likelihood(*args)
        return log_probs, torch.ones_like(log_probs)


class Bright(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return 255 * super().decode(images)


class ChannelsLast(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(images).permute(0, 2, 3, 1)


class HardPixels(TableBackbone):
    def decode(self, images: Images) -> Tensor:
        return super().decode(replace(images, soft=None))
