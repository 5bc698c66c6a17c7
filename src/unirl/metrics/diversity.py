"""Diversity of the images of one prompt."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from unirl.errors import UserError


class TimmFeatures:
    """Pooled features of a frozen, pretrained timm model: `model.evaluation.diversity_model`.

    Args:
        name: Name of a timm model, such as "resnet18", a folder saved by timm, or `package:folder`.
        device: Where features are computed.

    Raises:
        UserError: timm has no such model, or it cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        import timm  # noqa: PLC0415 - takes a second to import

        from unirl.backbones.checkpoints import building_on_cpu, locate  # noqa: PLC0415 - imports transformers

        is_local = Path(name).is_dir() or (":" in name and not name.startswith(("hf-hub:", "hf_hub:", "timm/")))
        folder = locate(name) if is_local else None
        try:
            with building_on_cpu():
                model = timm.create_model(f"local-dir:{folder}" if folder else name, pretrained=True, num_classes=0)
        except Exception as error:  # timm and the hub raise errors of many types
            raise UserError(
                f"model.evaluation.diversity_model: timm cannot load {name!r} ({type(error).__name__}: {error}); take "
                "a name from timm.list_models(pretrained=True), a folder saved by timm, or null for none"
            ) from error
        self._model = model.eval().requires_grad_(False).to(device)
        config: Any = self._model.pretrained_cfg
        self._mean, self._std = (
            torch.tensor(config[name], dtype=torch.float32, device=device).view(3, 1, 1) for name in ("mean", "std")
        )
        self._size = None if folder else tuple(config["input_size"][1:])

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of images. For public models, images are resized to the size of their training.

        Args:
            pixels: Images in [0, 1].

        Shapes:
            pixels (B, 3, H, W); returns (B, F).
        """
        if self._size and tuple(pixels.shape[-2:]) != self._size:
            pixels = F.interpolate(pixels, self._size, mode="bilinear", antialias=True)
        with torch.autocast(pixels.device.type, enabled=False):
            features: Tensor = self._model((pixels.to(self._mean) - self._mean) / self._std)
        return features


class GroupDiversity(Metric):
    """Mean distance between the samples of a group, over all pairs of all groups.

    Args:
        distance: "hamming" is the share of different entries, for codes. "cosine" is 1 minus the cosine similarity, for
            features.
        kwargs: As for `torchmetrics.Metric`.

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
        self.add_state("total", torch.tensor(0.0, dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("pairs", torch.tensor(0.0, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, values: Tensor, group_size: int) -> None:
        """Add groups. Groups of one sample have no pairs.

        Args:
            values: Codes or features of the samples.
            group_size: Samples of each prompt.

        Shapes:
            values (B, N), prompt-major.
        """
        groups = values.view(-1, group_size, values.shape[-1])
        if self.distance == "hamming":
            distances = (groups[:, :, None] != groups[:, None]).float().mean(-1)
        else:
            directions = F.normalize(groups.float(), dim=-1)
            distances = 1 - directions @ directions.mT
        first, second = torch.triu_indices(group_size, group_size, 1, device=values.device)
        pairs = distances[:, first, second]
        self.total += pairs.sum()
        self.pairs += pairs.numel()

    def compute(self) -> Tensor:
        """Mean distance: in [0, 1] for "hamming", in [0, 2] for "cosine"; NaN without pairs."""
        return self.total / self.pairs
