"""How well does the picture fit the prompt, by a CLIP?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from unirl.backbones.checkpoints import describe_error, locate, read_json
from unirl.errors import UserError
from unirl.rewards.pretrained import PretrainedReward

SETTINGS = ("*.json", "*.txt", "*.jinja", "*.model")
"""Files of a hub checkpoint that hold no weights."""


class CLIPParts(NamedTuple):
    """A CLIP and what prepares its inputs, as transformers has them."""

    model: Any
    tokenizer: Any
    image_processor: Any


class CLIP(PretrainedReward):
    """Cosine of picture and prompt under transformers' `CLIPModel`, calibrated to [0, 1].

    It looks at the drawing and not at the answer, so it rewards drawing alone. The model is loaded once and stays.
    Prompts are cut to the model's length. Subclasses may `measure` something else of the same model.

    Args:
        model: A hub id, a folder, or `package:folder`.
        low: Cosine that counts as 0. Public CLIPs lie around 0.15 for a picture of something else.
        high: Cosine that counts as 1; around 0.35 for a picture that fits.
        batch: Pictures at a time.
        weight: Its share in the sum of all rewards.
        standardize: Compare within groups in standard deviations.
        accept: Least score, calibrated, with which it accepts a drawing; None gives no verdict: how high a cosine means
            "right" differs from one CLIP to the next, and from prompt to prompt.
        processor: Where tokenizer and image processor are, where not beside the model.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Radford et al. 2021 (arXiv 2103.00020).
    """

    safetensors_only: ClassVar[bool] = False
    """Whether weights in pickles (read as weights only) are refused, and not even fetched."""
    hint: ClassVar[str] = ""
    """What to do where the model cannot be read."""

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        low: float = 0.15,
        high: float = 0.35,
        batch: int = 64,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch, weight, standardize, accept_threshold)
        self.processor = processor

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosines.

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        model, tokenizer, image_processor = self.loaded
        model.to(pixels.device)
        # A tokenizer that was saved by itself may not know how long a text its model reads.
        length = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)
        tokens = tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        inputs = image_processor(images=pixels, do_rescale=False, return_tensors="pt", device=pixels.device)
        out = model(
            input_ids=tokens["input_ids"].to(pixels.device),
            attention_mask=tokens["attention_mask"].to(pixels.device),
            pixel_values=inputs["pixel_values"],
        )
        return (out.text_embeds * out.image_embeds).sum(-1)

    def load(self) -> CLIPParts:
        """Model, tokenizer and image processor.

        Raises:
            UserError: there is no CLIP, its weights are incomplete, or it cannot be read.
        """
        folder = locate(self.model, files=(*SETTINGS, "*.safetensors") if self.safetensors_only else None)
        beside = locate(self.processor, files=SETTINGS) if self.processor else folder
        try:
            return self._read(folder, beside)
        except Exception as error:  # transformers raises what it likes
            said = str(error) if isinstance(error, UserError) else describe_error(error)
            nothing = f"{self.name}: {self.model!r} holds no CLIP that can be read ({said})"
            raise UserError(f"{nothing}{self.hint}") from error

    def _read(self, folder: Path, beside: Path) -> CLIPParts:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel  # noqa: PLC0415 - slow to import

        # transformers would make a CLIP of any folder, with random numbers for what is not there.
        kind = read_json(folder / "config.json").get("model_type")
        if kind != "clip":
            raise UserError(f"its config.json says {kind!r}, expected 'clip'")
        safe = True if self.safetensors_only else None
        loader: Any = CLIPModel  # its annotations leave out that loading info makes the result a pair
        model, info = loader.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=safe, output_loading_info=True
        )
        if info["missing_keys"]:
            raise UserError(f"its weights lack {min(info['missing_keys'])} ({len(info['missing_keys'])} such tensors)")
        tokenizer = AutoTokenizer.from_pretrained(beside)
        return CLIPParts(model.eval().requires_grad_(False), tokenizer, CLIPImageProcessor.from_pretrained(beside))
