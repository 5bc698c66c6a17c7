"""How well does the picture fit the prompt, by a CLIP?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unirl.backbones.files import locate, reason
from unirl.errors import UserError
from unirl.rewards.base import Reward
from unirl.types import Answers, Example, Images


class CLIP(Reward):
    """Cosine of picture and prompt under transformers' `CLIPModel`, calibrated to [0, 1].

    It looks at the drawing and not at the answer, so it rewards drawing alone. The model is loaded once and stays.

    Args:
        model: A hub id, a folder, or `package:folder`.
        low: Cosine that counts as 0. Public CLIPs lie around 0.15 for a picture of something else.
        high: Cosine that counts as 1; around 0.35 for a picture that fits.
        batch: Pictures at a time.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict: how high a cosine means
            "right" differs from one CLIP to the next, and from prompt to prompt.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Radford et al. 2021 (arXiv 2103.00020).
    """

    needs_pixels = True

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        low: float = 0.15,
        high: float = 0.35,
        batch: int = 64,
        weight: float = 1.0,
        standardize: bool = False,
        accept: float | None = None,
    ) -> None:
        super().__init__(weight, standardize)
        if not low < high:
            raise UserError(f"clip: low {low} must be below high {high}; they are the cosines that count as 0 and 1")
        if batch < 1:
            raise UserError(f"clip: batch {batch}; it must be at least 1")
        self.model, self.low, self.high, self.batch, self.accept = model, low, high, batch, accept
        self._parts: tuple[Any, Any, Any] | None = None

    def attach(self, backbone: object) -> None:
        self._load()

    @torch.no_grad()
    def score(self, examples: Sequence[Example], images: Images, answers: Answers) -> Tensor:
        """The calibrated cosine of each drawing and its prompt.

        Shapes:
            returns (B,), float32, in [0, 1].
        """
        assert images.pixels is not None
        cosines = [
            self._cosines([e.prompt for e in examples[i : i + self.batch]], images.pixels[i : i + self.batch])
            for i in range(0, len(examples), self.batch)
        ]
        return ((torch.cat(cosines) - self.low) / (self.high - self.low)).clamp(0, 1)

    def _cosines(self, prompts: list[str], pixels: Tensor) -> Tensor:
        model, tokenizer, processor = self._load()
        model.to(pixels.device)
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(pixels.device)
        inputs = processor(images=pixels.float(), do_rescale=False, return_tensors="pt", device=pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):
            out = model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=inputs["pixel_values"],
            )
        return (out.text_embeds * out.image_embeds).sum(-1).float()

    def _load(self) -> tuple[Any, Any, Any]:
        if self._parts is None:
            from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel  # noqa: PLC0415 - slow to import

            folder = locate(self.model)
            try:
                model = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)
                parts = (model, AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder))
            except Exception as error:  # transformers raises what it likes
                raise UserError(f"clip: {self.model!r} holds no CLIP that can be read ({reason(error)})") from error
            self._parts = parts
        return self._parts
