"""CLIPs that were fine-tuned on human preferences between images."""

from collections.abc import Sequence

from torch import Tensor

from unirl.rewards import CLIP


class PickScore(CLIP):
    """PickScore: `exp(logit_scale) * cosine` under a ViT-H/14 CLIP trained on 500,000 preferences.

    It predicts which of two images of a prompt people prefer, not whether an image is correct. Weights are read from
    safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`, in the format of transformers' `CLIPModel`.
        low: PickScore that is mapped to 0.
        high: PickScore that is mapped to 1. Take a wide range: images outside of it have equal scores, and so no
            advantage.
        batch_size: Images of a forward pass.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least calibrated score of an accepted sample. None gives no verdict.
        processor: Where tokenizer and image processor are. Defaults to `model`.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Kirstain et al. 2023 (arXiv 2305.01569), section 3.

    Example:
        >>> PickScore(high=30.0).high
        30.0
    """

    safetensors_only = True

    def __init__(
        self,
        model: str = "yuvalkirstain/PickScore_v1",
        low: float = 16.0,
        high: float = 26.0,
        batch_size: int = 32,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch_size, weight, standardize, accept_threshold, processor)

    def measure(self, prompts: Sequence[str], pixels: Tensor) -> Tensor:
        """PickScores: the values before the softmax in the authors' `calc_probs`.

        Args:
            prompts: The prompt of each image.
            pixels: The images, in [0, 1].

        Shapes:
            pixels (B, 3, H, W); returns (B,).
        """
        cosines = super().measure(prompts, pixels)
        scores: Tensor = self.loaded.model.logit_scale.exp() * cosines
        return scores


class HPSv2(CLIP):
    """Human Preference Score v2: the cosine under a CLIP trained on rankings of images.

    There is no default model: the authors publish pickles of open_clip only (`xswu/HPSv2`), which are not read. The
    README has alternatives. Weights are read from safetensors only.

    Args:
        model: A hub id, a folder, or `package:folder`, in the format of transformers' `CLIPModel`.
        low: Cosine that is mapped to 0.
        high: Cosine that is mapped to 1. The authors' table goes from 0.236 (GLIDE) to 0.279 (Dreamlike Photoreal 2.0).
        batch_size: Images of a forward pass.
        weight: Weight in the sum of all rewards.
        standardize: As in `Reward`.
        accept_threshold: Least calibrated score of an accepted sample. None gives no verdict.
        processor: Where tokenizer and image processor are. Defaults to `model`.

    Raises:
        UserError: `low` is not below `high`, or the model cannot be loaded.

    Source: Wu et al. 2023 (arXiv 2306.09341); `hpsv2/img_score.py` of its public code.

    Example:
        >>> HPSv2("my/hpsv2").low
        0.2
    """

    safetensors_only = True
    hint = "; the authors' .pt files are not read: give a CLIPModel in safetensors, see the README of unirl-preference"

    def __init__(
        self,
        model: str,
        low: float = 0.2,
        high: float = 0.35,
        batch_size: int = 32,
        weight: float = 1.0,
        standardize: bool = False,
        accept_threshold: float | None = None,
        processor: str | None = None,
    ) -> None:
        super().__init__(model, low, high, batch_size, weight, standardize, accept_threshold, processor)
