"""How different are the drawings of one prompt?"""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from unirl.backbones.checkpoints import locate
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


class GroupDiversity(Metric):
    """Mean distance between the samples of a group, over all pairs and groups.

    Args:
        distance: "hamming", the share of differing entries, for codes; "cosine", 1 minus the cosine, for features.

    Example:
        >>> metric = GroupDiversity("hamming")
        >>> metric.update(torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5], [7, 7, 7, 7], [7, 7, 7, 7]]), group_size=2)
        >>> metric.compute().item()
        0.125
    """

    full_state_update = False
    total: Tensor
    pairs: Tensor

    def __init__(self, distance: Literal["hamming", "cosine"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distance = distance
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("pairs", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, values: Tensor, group_size: int) -> None:
        """Count the pairs of each group; a group of one has none.

        Shapes:
            values (B, N), prompt-major.
        """
        groups = values.view(-1, group_size, values.shape[-1])
        if self.distance == "hamming":
            apart = (groups[:, :, None] != groups[:, None]).float().mean(-1)
        else:
            directions = F.normalize(groups.float(), dim=-1)
            apart = 1 - directions @ directions.mT
        upper = torch.ones(group_size, group_size, device=values.device).triu(1).bool()
        self.total += apart[:, upper].sum()
        self.pairs += apart[:, upper].numel()

    def compute(self) -> Tensor:
        """In [0, 1] for codes, in [0, 2] for features; NaN where no group had two samples."""
        return self.total / self.pairs
