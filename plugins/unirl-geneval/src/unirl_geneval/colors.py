"""GenEval's classification of colors: a CLIP reads an object on a gray background."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unirl.judges import COLORS
from unirl_geneval.detector import DetectedObject
from unirl_geneval.pretrained import find_model, load_model, load_part

OWNER = "geneval: the CLIP"
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
BACKGROUND = 153
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LOGIT_SCALE = 100.0
BATCH_SIZE = 16


class ColorClassifier:
    """Says which color an object has.

    Args:
        checkpoint: A `CLIPModel` with its tokenizer: a folder, `package:folder` or hub id.
        revision: Branch, tag or commit of the hub's repository.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, checkpoint: str, revision: str | None = None) -> None:
        from transformers import AutoTokenizer, CLIPModel  # noqa: PLC0415 - slow to import

        folder = find_model(checkpoint, revision, OWNER)
        self.model: Any = load_model(CLIPModel, folder, OWNER, "clip", dtype=torch.float32)
        self.tokenizer: Any = load_part(AutoTokenizer, folder, OWNER)
        self.side: int = self.model.config.vision_config.image_size
        self._classifiers: dict[str, Tensor] = {}

    def colors(self, image: Tensor, objects: Sequence[DetectedObject]) -> list[str]:
        """The color of each object of a class.

        Args:
            image: Levels from 0 to 255.
            objects: Detected in it.

        Shapes:
            image (3, H, W) uint8.
        """
        logits = self.logits(objects[0].name, self.crops(image, objects).to(image.device))
        return [COLORS[index] for index in logits.argmax(1).tolist()]

    def crops(self, image: Tensor, objects: Sequence[DetectedObject]) -> Tensor:
        """The CLIP's input for each object, on the CPU.

        Args:
            image: Levels from 0 to 255.
            objects: Detected in it.

        Shapes:
            image (3, H, W) uint8; returns (N, 3, side, side).
        """
        pixels = image.permute(1, 2, 0).cpu().numpy()
        return torch.stack([clip_input(crop(pixels, one), self.side) for one in objects])

    def logits(self, name: str, crops: Tensor) -> Tensor:
        """100 times the cosine of each crop and each color.

        Args:
            name: The class of the objects.
            crops: As `crops` returns them.

        Shapes:
            crops (N, 3, side, side); returns (N, 10).
        """
        self.model.to(crops.device)
        batches = torch.split(crops, BATCH_SIZE)
        features = [self.model.vision_model(pixel_values=batch).pooler_output for batch in batches]
        embedded = _normalized(self.model.visual_projection(torch.cat(features)))
        return LOGIT_SCALE * embedded @ self.classifier(name)

    def classifier(self, name: str) -> Tensor:
        """A column for each color: the mean of the embeddings of three texts.

        Args:
            name: The class of the objects.

        Shapes:
            returns (D, 10), on the device of the model.
        """
        device = self.model.device
        if name not in self._classifiers or self._classifiers[name].device != device:
            texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
            tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(device)
            pooled = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            embedded = _normalized(self.model.text_projection(pooled)).view(len(COLORS), len(TEMPLATES), -1)
            self._classifiers[name] = _normalized(embedded.mean(1)).T
        return self._classifiers[name]


def crop(pixels: np.ndarray, one: DetectedObject) -> Image.Image:
    """An object, cut out of its image.

    Args:
        pixels: Levels from 0 to 255.
        one: The object.

    Shapes:
        pixels (H, W, 3) uint8.
    """
    assert one.mask is not None
    x0, y0, x1, y1 = (int(end) for end in one.box)
    mask = one.mask[y0:y1, x0:x1, None].cpu().numpy()
    return Image.fromarray(np.where(mask, pixels[y0:y1, x0:x1], np.uint8(BACKGROUND)))


def clip_input(image: Image.Image, side: int) -> Tensor:
    """An image as OpenAI's CLIP takes it: resized by Pillow, cropped at the center, normalized.

    Args:
        image: Of any size.
        side: Of the CLIP's input.

    Shapes:
        returns (3, side, side).
    """
    width, height = image.size
    short, long = min(width, height), int(side * max(width, height) / min(width, height))
    size = (side, long) if width == short else (long, side)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    # Half to even, as torchvision's center crop of pixels does; transformers' processors round down.
    left, top = (round((length - side) / 2) for length in size)
    pixels = torch.from_numpy(np.array(resized.crop((left, top, left + side, top + side)))).permute(2, 0, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def _normalized(embeddings: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embeddings, dim=-1)
