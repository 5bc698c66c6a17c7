"""Drawing: what was kept is what is scored; who decides is the generator; companions do not matter."""

import dataclasses

import torch

from unirl.backbones.base import Backbone
from unirl.testing.backbone_base import Checks, gap, require, seeded
from unirl.testing.backbone_chance import untouched
from unirl.types import ImageSampling


class DrawingChecks(Checks):
    """Sampling and scoring of drawings agree."""

    @property
    def samplings(self) -> list[ImageSampling]:
        """Plain, with temperature, with guidance, and with both."""
        plain = dataclasses.replace(self.sampling, guidance=0.0, temperature=1.0)
        warm = dataclasses.replace(plain, temperature=self.sampling.temperature)
        guided = dataclasses.replace(plain, guidance=self.sampling.guidance)
        return list(dict.fromkeys([plain, warm, guided, self.sampling]))

    @torch.no_grad()
    def test_scored_log_probs_are_those_kept_while_sampling(self, backbone: Backbone) -> None:
        for sampling in self.samplings:
            images = self.generate(backbone, sampling)
            log_probs, _ = backbone.image_log_probs(list(self.prompts), images, sampling)
            off = gap(log_probs, self.kept(images))
            require(
                off <= self.tolerance,
                f"image_log_probs: differs from the log_probs that sample_images kept by up to {off:.2g} nats "
                f"(allowed: {self.tolerance:g}) with guidance {sampling.guidance:g} and "
                f"temperature {sampling.temperature:g}",
            )

    @torch.no_grad()
    def test_scoring_follows_prompt_guidance_and_temperature(self, backbone: Backbone) -> None:
        prompts, plain = list(self.prompts), self.samplings[0]
        images = self.generate(backbone, plain)
        log_probs, _ = backbone.image_log_probs(prompts, images, plain)
        others = {
            "the temperature": (prompts, dataclasses.replace(plain, temperature=2.0)),
            "the prompt": ([*prompts[1:], prompts[0]], plain),
        }
        if self.sampling.guidance:
            others["guidance"] = prompts, dataclasses.replace(plain, guidance=self.sampling.guidance)
        for what, (asked, sampling) in others.items():
            other, _ = backbone.image_log_probs(asked, images, sampling)
            require(gap(log_probs, other) > 0, f"image_log_probs: {what} makes no difference to what is scored")

    @torch.no_grad()
    def test_a_scored_part_is_the_same_as_in_the_whole(self, backbone: Backbone) -> None:
        prompts, images = list(self.prompts), self.generate(backbone)
        whole, _ = backbone.image_log_probs(prompts, images, self.sampling)
        part, mask = backbone.image_log_probs(prompts, images, self.sampling, 1, seeded(1))
        _, again = backbone.image_log_probs(prompts, images, self.sampling, 1, seeded(1))
        require(mask.dtype == torch.bool, f"image_log_probs: with scored=1 the mask is {mask.dtype}, not torch.bool")
        require(mask.shape == whole.shape, "image_log_probs: with scored=1 the mask has another shape than without")
        require(bool(mask.any(1).all()), "image_log_probs: with scored=1 the mask leaves a picture without decisions")
        off = gap(part[mask], whole[mask])
        require(
            off <= self.tolerance,
            f"image_log_probs: with scored=1 the decisions under the mask differ by up to {off:.2g} nats from the same "
            "ones in the whole; the mask must say what was scored",
        )
        require(torch.equal(mask, again), "image_log_probs: the same generator chooses other steps to score")

    def test_the_generator_alone_decides_drawings(self, backbone: Backbone) -> None:
        one = untouched("sample_images", lambda: self.generate(backbone))
        same = untouched("sample_images", lambda: self.generate(backbone), 2)
        require(
            torch.equal(one.codes, same.codes) and gap(self.kept(one), self.kept(same)) <= self.tolerance,
            "sample_images: a generator in the same state gives another drawing; every random number must come from it",
        )
        first, other = self.group(backbone, seed=0), self.group(backbone, seed=1)
        require(
            not torch.equal(first.codes, other.codes), "sample_images: another seed of the generator changes nothing"
        )
        rows = len(first.codes.unique(dim=0))
        require(rows > 1, "sample_images: all drawings of a group are the same; each needs random numbers of its own")

    def test_the_generator_alone_decides_scoring(self, backbone: Backbone) -> None:
        prompts, images = list(self.prompts), self.generate(backbone)
        calls = {
            "image_log_probs": lambda: backbone.image_log_probs(prompts, images, self.sampling, 1, seeded())[0],
            "image_log_likelihood": lambda: backbone.image_log_likelihood(prompts, images, self.sampling, 1, seeded())[
                0
            ],
        }
        if backbone.supports_straight_through:
            calls["straight_through"] = lambda: backbone.decode(
                backbone.straight_through(prompts, images, self.sampling, 1.0, 1, seeded())
            )
        for name, call in calls.items():
            off = gap(untouched(name, call), untouched(name, call, 2))
            require(off <= self.tolerance, f"{name}: a generator in the same state gives other numbers (by {off:.2g})")

    @torch.no_grad()
    def test_companions_do_not_matter_in_drawing(self, backbone: Backbone) -> None:
        prompts = list(self.prompts)
        for sampling in (self.samplings[0], self.sampling):
            images = self.generate(backbone, sampling)
            together, _ = backbone.image_log_probs(prompts, images, sampling)
            for row in range(len(prompts)):
                part = slice(row, row + 1)
                alone, _ = backbone.image_log_probs(prompts[part], images[part], sampling)
                for method, log_probs in {"sample_images": self.kept(images), "image_log_probs": together}.items():
                    off = gap(log_probs[part], alone)
                    require(
                        off <= self.tolerance,
                        f"{method}: log-probabilities of picture {row} depend on the others in the batch: they "
                        f"differ by up to {off:.2g} nats from those of image_log_probs for it alone",
                    )

    @torch.no_grad()
    def test_rows_keep_the_order_of_prompts(self, backbone: Backbone) -> None:
        prompts = [prompt for prompt in self.prompts for _ in range(2)]
        images = backbone.sample_images(prompts, self.sampling, seeded())
        log_probs, _ = backbone.image_log_probs(prompts, images, self.sampling)
        order = torch.arange(len(prompts)).flip(0)
        turned, _ = backbone.image_log_probs(prompts[::-1], images[order], self.sampling)
        off = gap(turned, log_probs[order])
        require(off <= self.tolerance, f"image_log_probs: in another order, rows score otherwise (by {off:.2g} nats)")
        off = gap(backbone.decode(images[order]), backbone.decode(images)[order])
        require(off <= self.tolerance, f"decode: in another order, pictures are others (by {off:.2g})")
