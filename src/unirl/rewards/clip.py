"""The CLIP reward: how well an image fits its prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from unirl.backbones.checkpoints import PretrainedModel
from unirl.backbones.hub import CONFIG_FILES
from unirl.errors import UserError
from unirl.rewards.pretrained import PretrainedReward


class CLIPParts(NamedTuple):
    """A CLIP with the classes of transformers that prepare its inputs."""

    model: Any
    tokenizer: Any
    image_processor: Any


class CLIP(PretrainedReward):
    """Cosine similarity of image and prompt under transformers' `CLIPModel`, calibrated to [0, 1].

    Answers are not used, so it trains generation only. Prompts are truncated to the model's length. Subclasses may
    override `measure`.

    Args:
        model: A hub id, a folder, or `package:folder`.
        low: Cosine that is mapped to 0. Public CLIPs have around 0.15 for an image of something else.
        high: Cosine that is mapped to 1; around 0.35 for an image that fits.
        batch_size: Images of a forward pass.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least calibrated score of an accepted sample. None gives no verdict: which cosine
            means "correct" depends on the model and on the prompt.
        processor: Where tokenizer and image processor are. Defaults to `model`.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Radford et al. 2021 (arXiv 2103.00020).
    """

    safetensors_only: ClassVar[bool] = False
    """Whether weights in pickles are refused and not downloaded. They are otherwise read with `weights_only`."""
    hint: ClassVar[str] = ""
    """Added to the error where the model cannot be read."""

    def __init__(
        self,
        model: str = "openai/clip-vit-base-patch32",
        low: float = 0.15,
        high: float = 0.35,
        batch_size: int = 64,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch_size, weight, standardize, accept_threshold)
        self.processor = processor

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """Cosine similarities.

        Args:
            prompts: The prompt of each image.
            pixels: The images, in [0, 1].

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        model, tokenizer, image_processor = self.loaded
        model.to(pixels.device)
        length = self.max_prompt_length
        tokens = tokenizer(list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        inputs = image_processor(images=pixels, do_rescale=False, return_tensors="pt", device=pixels.device)
        out = model(
            input_ids=tokens["input_ids"].to(pixels.device),
            attention_mask=tokens["attention_mask"].to(pixels.device),
            pixel_values=inputs["pixel_values"],
        )
        cosines: Tensor = (out.text_embeds * out.image_embeds).sum(-1)
        return cosines

    @property
    @override
    def max_prompt_length(self) -> int | None:
        if "loaded" not in vars(self):
            return None
        model, tokenizer, _ = self.loaded
        # A tokenizer that was saved without its model may not know the maximum length.
        return int(min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings))

    @override
    def prompt_lengths(self, prompts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.loaded.tokenizer(list(prompts), verbose=False)["input_ids"]]

    @property
    @override
    def pretrained_models(self) -> Sequence[PretrainedModel]:
        model = PretrainedModel(self.model, self._files, "clip")
        return (model, PretrainedModel(self.processor, CONFIG_FILES)) if self.processor else (model,)

    @property
    def _files(self) -> tuple[str, ...] | None:
        return (*CONFIG_FILES, "*.safetensors") if self.safetensors_only else None

    def load(self) -> CLIPParts:
        """Load model, tokenizer and image processor.

        Raises:
            UserError: there is no CLIP, its weights are incomplete, or it cannot be read.
        """
        from unirl.backbones.checkpoints import (  # noqa: PLC0415 - imports transformers
            building_on_cpu,
            describe_error,
            locate,
        )

        folder = locate(self.model, files=self._files)
        processor_folder = locate(self.processor, files=CONFIG_FILES) if self.processor else folder
        try:
            with building_on_cpu():
                return self._read(folder, processor_folder)
        except Exception as error:  # transformers raises errors of many types
            cause = str(error) if isinstance(error, UserError) else describe_error(error)
            message = f"{self.name}: {self.model!r} holds no CLIP that can be read ({cause})"
            raise UserError(f"{message}{self.hint}") from error

    def _read(self, folder: Path, processor_folder: Path) -> CLIPParts:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel  # noqa: PLC0415 - slow to import

        from unirl.backbones.checkpoints import read_json  # noqa: PLC0415

        # transformers makes a CLIP of any folder, with random weights for what is missing.
        model_type = read_json(folder / "config.json").get("model_type")
        if model_type != "clip":
            raise UserError(f"its config.json says {model_type!r}, expected 'clip'")
        loader: Any = CLIPModel  # its annotations do not know output_loading_info
        model, info = loader.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True if self.safetensors_only else None,
            output_loading_info=True,
        )
        if missing := info["missing_keys"]:
            raise UserError(f"its weights lack {min(missing)} ({len(missing)} such tensors)")
        tokenizer = AutoTokenizer.from_pretrained(processor_folder)
        image_processor = CLIPImageProcessor.from_pretrained(processor_folder)
        return CLIPParts(model.eval().requires_grad_(False), tokenizer, image_processor)
