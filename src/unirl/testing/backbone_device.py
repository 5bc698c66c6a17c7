"""Checks that a backbone runs on another device than the CPU, and does not keep that device waiting."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from unirl.backbones.base import Backbone
from unirl.functional.seeding import PerImageGenerator
from unirl.testing.backbone_settings import BackboneSettings, with_pixels
from unirl.testing.comparison import max_difference
from unirl.testing.devices import ADVICE, on_pretend_device
from unirl.types import Answers, Images, to_device

FEWEST = 4
"""Codes and steps from which on something that happens once is told from something that happens each time."""


class DeviceChecks(BackboneSettings):
    """The part of `BackboneConformance` on devices, by the pretend accelerator of `unirl.testing.pretend`."""

    def test_methods_run_on_another_device(self, backbone: Backbone) -> None:
        """On another device, all methods and their gradients work, and scores are those of the CPU."""
        images = with_pixels(backbone, self._sample_images(backbone))
        answers = backbone.tokenize_answers(list(self.answers))
        with torch.no_grad():
            expected = {name: call(images, answers) for name, call in self._scores(backbone).items()}
        with on_pretend_device(backbone) as accelerator:
            device = accelerator.device
            sampled = _run("sample_images", lambda: self._sample_images_on(backbone, device))
            sampled = dataclasses.replace(sampled, pixels=_run("decode", lambda: backbone.decode(sampled)))
            _run("encode", lambda: backbone.encode(sampled.pixels))
            _run("sample_answers", lambda: self._sample_answers_on(backbone, sampled, device))
            answers = _run("tokenize_answers", lambda: backbone.tokenize_answers(list(self.answers)))
            images = to_device(images, device)
            for name, call in self._scores(backbone).items():
                scores = _run(name, lambda call=call: _with_gradient(call(images, answers)))  # type: ignore[misc]
                difference = max_difference(scores.cpu(), expected[name])
                assert difference <= self.tolerance, (
                    f"{name} returned values that differ by {difference:.2g} nats on another device than the CPU"
                )

    def test_sampling_images_does_not_wait_for_the_device(self, backbone: Backbone) -> None:
        """No line of `sample_images` waits for the device, or copies to it, as often as codes or steps are sampled."""
        sampling = dataclasses.replace(self.image_sampling, steps=max(FEWEST, self.image_sampling.steps))
        with on_pretend_device(backbone) as accelerator, accelerator.count() as counts:
            generator = PerImageGenerator([torch.Generator(accelerator.device).manual_seed(0)])
            images = backbone.sample_images([self.prompts[0]], sampling, generator)
        times = min(images.codes.shape[1], sampling.steps)
        if times < FEWEST:
            pytest.skip(f"images of {times} codes are too short to tell")
        waiting = [f"{count} times: {where}" for where, count in counts.waits.items() if count >= times]
        assert not waiting, (
            f"sample_images waits for the device in each code or step, {'; '.join(waiting)}; keep what is sampled on "
            "the device, and move what you need there before the loop"
        )

    def test_answers_wait_at_most_once_per_token(self, backbone: Backbone) -> None:
        """One more token costs at most one wait for the device, and one more answer costs none."""
        shorter = dataclasses.replace(self.answer_sampling, max_tokens=max(1, self.answer_sampling.max_tokens // 2))
        with on_pretend_device(backbone) as accelerator:
            images = with_pixels(backbone, self._sample_images_on(backbone, accelerator.device))

            def sample(sampling: Any, repeats: int = 1) -> tuple[int, Counter[str]]:
                questions = [question for question in self.questions for _ in range(repeats)]
                generator = PerImageGenerator(
                    torch.Generator(accelerator.device).manual_seed(i) for i in range(len(images))
                )
                with accelerator.count() as counts:
                    answers = backbone.sample_answers(images, questions, sampling, generator)
                return answers.ids.shape[1], counts.waits

            short, long = sample(shorter), sample(self.answer_sampling)
            greedy = dataclasses.replace(shorter, temperature=0.0)
            few, many = sample(greedy), sample(greedy, 2)
        more = long[1] - short[1]
        assert more.total() <= long[0] - short[0], (
            f"sample_answers waits for the device more than once for a token: {_listed(more)}; check once for a token "
            "whether all answers have ended"
        )
        assert (many[1] - few[1]).total() <= many[0] - few[0], (
            f"sample_answers waits for the device for each answer: {_listed(many[1] - few[1])}; copy all of them at "
            "once"
        )

    def _scores(self, backbone: Backbone) -> dict[str, Callable[[Images, Answers], Tensor]]:
        """Log-probabilities with gradient, by the methods that return them."""
        prompts, questions, sampling = list(self.prompts), list(self.questions), self.image_sampling

        def generator() -> torch.Generator:
            return torch.Generator(next(backbone.parameters()).device).manual_seed(0)

        def end_to_end(images: Images, answers: Answers) -> Tensor:
            steps = backbone.straight_through_steps
            soft = backbone.straight_through(prompts, images, sampling, 1.0, steps, generator())
            return backbone.answer_log_probs(soft, questions, answers)

        calls: dict[str, Callable[[Images, Answers], Tensor]] = {
            "image_log_probs": lambda images, _: backbone.image_log_probs(prompts, images, sampling)[0],
            "image_log_likelihood": lambda images, _: backbone.image_log_likelihood(
                prompts, images, sampling, 2, generator()
            )[0],
            "answer_log_probs": lambda images, answers: backbone.answer_log_probs(images, questions, answers),
        }
        return calls | ({"straight_through": end_to_end} if backbone.supports_straight_through else {})

    def _sample_images_on(self, backbone: Backbone, device: torch.device) -> Images:
        generator = torch.Generator(device).manual_seed(0)
        return backbone.sample_images(list(self.prompts), self.image_sampling, generator)

    def _sample_answers_on(self, backbone: Backbone, images: Images, device: torch.device) -> Answers:
        generator = torch.Generator(device).manual_seed(0)
        return backbone.sample_answers(images, list(self.questions), self.answer_sampling, generator)


def _run(method: str, call: Callable[[], Any]) -> Any:
    """Call a method; what it returns must be on the device."""
    try:
        result = call()
    except Exception as error:
        raise AssertionError(
            f"{method} failed on another device than the CPU with {type(error).__name__}: {error}; {ADVICE}"
        ) from error
    for name, tensor in _tensors(result).items():
        assert tensor.device.type != "cpu", (
            f"{method} returned {name or 'a tensor'} on the CPU, though the model is on another device"
        )
    return result


def _tensors(value: Any) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {"": value}
    if isinstance(value, Mapping):
        return {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    return _tensors({**vars(value), **vars(value).get("memory", {})})


def _with_gradient(scores: Tensor) -> Tensor:
    scores.sum().backward()
    return scores.detach()


def _listed(waits: Counter[str]) -> str:
    return "; ".join(f"{count} times more: {where}" for where, count in waits.items())
