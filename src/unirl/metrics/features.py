"""Pictures as features of a timm backbone."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unirl.backbones.files import locate
from unirl.errors import UserError


class TimmFeatures:
    """Pooled features of a pre-trained timm model, frozen.

    Args:
        name: A timm model's name, such as "resnet18", or a folder that timm saved ("package:folder" works, too).
        device: Where to compute.

    Raises:
        UserError: timm has no such model, or it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        import timm  # noqa: PLC0415 - takes a second that runs without it need not pay

        local = Path(name).is_dir() or (":" in name and not name.startswith(("hf-hub:", "hf_hub:", "timm/")))
        folder = locate(name) if local else None
        try:
            model = timm.create_model(f"local-dir:{folder}" if folder else name, pretrained=True, num_classes=0)
        except Exception as error:  # timm and the hub raise what they like
            raise UserError(
                f"features: timm cannot load {name!r} ({type(error).__name__}: {error}); take a name from "
                "timm.list_models(pretrained=True), a folder that timm saved, or null for no features"
            ) from error
        self._model = model.eval().requires_grad_(False).to(device)
        config: Any = self._model.pretrained_cfg
        self._mean, self._std = (torch.tensor(config[k], device=device).view(3, 1, 1) for k in ("mean", "std"))
        self._size = None if folder else tuple(config["input_size"][1:])

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of pictures, resized to what the model was trained on where it is a public one.

        Shapes:
            pixels (B, 3, H, W) in [0, 1]; returns (B, F).
        """
        if self._size and tuple(pixels.shape[-2:]) != self._size:
            pixels = torch.nn.functional.interpolate(pixels, self._size, mode="bilinear", antialias=True)
        return self._model((pixels.to(self._mean) - self._mean) / self._std)
